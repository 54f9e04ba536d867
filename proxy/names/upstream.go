// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/netns"
)

const (
	queryTimeout  = 5 * time.Second // for all attempts at all servers
	serverTimeout = 2 * time.Second // for one attempt; resolvers wait 5 s (resolv.conf(5))
	attempts      = 2
	maxCached     = 4096
	maxCachedSize = 4096    // of an answer, in bytes as they are sent
	maxCacheBytes = 4 << 20 // of all; in memory they take several times that
	maxCacheTime  = 60 * time.Second
)

// ErrNoAddress says that a name exists but has no address.
var ErrNoAddress = errors.New("no address")

// Upstream asks real DNS servers, from the outer namespace. It is safe for
// concurrent use.
type Upstream struct {
	outer   *netns.Namespace
	servers []netip.AddrPort
	hosts   *Hosts

	embedded *embedded // nil without

	mu    sync.Mutex
	cache map[question]cached
	bytes int // of all that has been put into it
}

type question struct {
	name  string
	qtype uint16
}

type cached struct {
	msg     *dns.Msg
	expires time.Time
}

// NewUpstream returns a resolver that looks into the hosts file and then asks
// the servers in turn. hosts may be nil.
func NewUpstream(outer *netns.Namespace, servers []netip.AddrPort, hosts *Hosts) *Upstream {
	return &Upstream{outer: outer, servers: servers, hosts: hosts, cache: make(map[question]cached)}
}

// Resolve returns the real addresses of host, which may be an IP literal, in
// the order they are to be tried: IPv4 first, because a host without IPv6
// connectivity is commoner than one without IPv4.
func (u *Upstream) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	type result struct {
		addrs []netip.Addr
		err   error
	}
	lookup := func(qtype uint16) chan result {
		c := make(chan result, 1)
		go func() {
			r := result{err: errors.New("the lookup failed: see the supervisor's log")}
			crash.Contain("a DNS lookup", func() {
				if msg, err := u.Ask(ctx, host, qtype); err != nil {
					r = result{err: err}
				} else {
					r = result{addresses(msg), rcodeError(host, msg)}
				}
			})
			c <- r
		}()
		return c
	}
	c4, c6 := lookup(dns.TypeA), lookup(dns.TypeAAAA)
	r4, r6 := <-c4, <-c6
	addrs := append(r4.addrs, r6.addrs...)
	switch {
	case len(addrs) > 0:
		return addrs, nil
	case r4.err != nil:
		return nil, r4.err
	case r6.err != nil:
		return nil, r6.err
	}
	return nil, fmt.Errorf("%s: %w", host, ErrNoAddress)
}

// Ask returns the servers' answer to one question. Answers are kept for their
// time to live, at most a minute, unless they are large.
func (u *Upstream) Ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	q := question{dns.CanonicalName(name), qtype}
	if msg := u.hosts.answer(q); msg != nil {
		return msg, nil
	}
	if msg := u.cached(q); msg != nil {
		return msg, nil
	}
	msg := new(dns.Msg)
	msg.SetQuestion(q.name, qtype)
	msg.SetEdns0(1232, false) // the size of DNS flag day 2020
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answer := u.askEmbedded(ctx, msg)
	if answer == nil {
		var err error
		if answer, err = u.askServers(ctx, msg); err != nil {
			return nil, fmt.Errorf("resolve %s: %w", name, err)
		}
	}
	u.store(q, answer)
	return answer, nil
}

// askServers asks the servers outside, in turn.
func (u *Upstream) askServers(ctx context.Context, msg *dns.Msg) (*dns.Msg, error) {
	if len(u.servers) == 0 {
		return nil, errors.New("no DNS server is configured (dns.upstream)")
	}
	var lastErr error
	for range attempts {
		for _, server := range u.servers {
			answer, err := u.exchange(ctx, msg, server, u.outer.Dial)
			if err == nil {
				return answer, nil
			}
			lastErr = err
			if ctx.Err() != nil {
				return nil, lastErr
			}
		}
	}
	return nil, lastErr
}

// dialer connects to a DNS server.
type dialer func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)

func (u *Upstream) exchange(ctx context.Context, msg *dns.Msg, server netip.AddrPort, dial dialer) (*dns.Msg, error) {
	answer, err := exchangeOver(ctx, "udp", msg, server, dial)
	if err == nil && answer.Truncated {
		answer, err = exchangeOver(ctx, "tcp", msg, server, dial)
	}
	if err != nil {
		return nil, err
	}
	if answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused {
		return nil, fmt.Errorf("%s answered %s", server, dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}

func exchangeOver(ctx context.Context, network string, msg *dns.Msg, server netip.AddrPort, dial dialer) (*dns.Msg,
	error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	conn, err := dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := dns.Client{Net: network, Timeout: serverTimeout}
	answer, _, err := client.ExchangeWithConnContext(ctx, msg, &dns.Conn{Conn: conn, UDPSize: 4096})
	return answer, err
}

func (u *Upstream) cached(q question) *dns.Msg {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.cache[q]
	if !ok {
		return nil
	}
	if time.Now().After(c.expires) {
		delete(u.cache, q)
		return nil
	}
	return c.msg.Copy()
}

func (u *Upstream) store(q question, msg *dns.Msg) {
	keep := maxCacheTime
	for _, rr := range msg.Answer {
		keep = min(keep, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if len(msg.Answer) == 0 {
		keep = time.Second
	}
	if keep <= 0 || msg.Len() > maxCachedSize {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.cache) >= maxCached || u.bytes > maxCacheBytes {
		clear(u.cache)
		u.bytes = 0
	}
	u.bytes += msg.Len()
	u.cache[q] = cached{msg.Copy(), time.Now().Add(keep)}
}

func addresses(msg *dns.Msg) []netip.Addr {
	var out []netip.Addr
	for _, rr := range msg.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func rcodeError(host string, msg *dns.Msg) error {
	if msg.Rcode == dns.RcodeSuccess {
		return nil
	}
	return fmt.Errorf("resolve %s: %s", host, dns.RcodeToString[msg.Rcode])
}
