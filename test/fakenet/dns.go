// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const resolvConf = "/etc/resolv.conf"

// startDNS serves the zone on the public name server's addresses, and on those
// of the machine's own resolv.conf, so that programs that are started in the
// outer namespace resolve names without being told.
func (n *Net) startDNS() error {
	servers := map[netip.Addr]netns.NsHandle{dns4: n.spaces.internet, dns6: n.spaces.internet}
	for _, addr := range machineNameServers() {
		if addr.IsLoopback() {
			servers[addr] = n.spaces.outer
		} else {
			servers[addr] = n.spaces.internet
		}
	}
	for addr, space := range servers {
		if err := n.serveDNS(space, netip.AddrPortFrom(addr, 53)); err != nil {
			return fmt.Errorf("serve DNS on %s: %w", addr, err)
		}
	}
	return nil
}

func (n *Net) serveDNS(space netns.NsHandle, at netip.AddrPort) error {
	packets, err := listenPacketIn(space, at)
	if err != nil {
		return err
	}
	listener, err := listenIn(space, at)
	if err != nil {
		packets.Close()
		return err
	}
	n.startDNSServer(&dns.Server{PacketConn: packets}, "udp")
	n.startDNSServer(&dns.Server{Listener: listener}, "tcp")
	return nil
}

func (n *Net) startDNSServer(server *dns.Server, network string) {
	server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { n.answerDNS(w, r, network) })
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	n.serving.Go(func() {
		if err := server.ActivateAndServe(); err != nil {
			n.log.Error("name server stopped", "network", network, "error", err)
		}
	})
	// Shutdown fails on a server that has not started yet.
	<-started
	n.closeLater(closerFunc(server.Shutdown))
}

func (n *Net) answerDNS(w dns.ResponseWriter, r *dns.Msg, network string) {
	reply := new(dns.Msg).SetReply(r)
	reply.Authoritative = true
	seen := Query{Time: time.Now(), Remote: w.RemoteAddr().String(), Network: network}
	if len(r.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
		w.WriteMsg(reply)
		return
	}
	question := r.Question[0]
	seen.Name = strings.TrimSuffix(question.Name, ".")
	seen.Type = dns.Type(question.Qtype).String()
	said := n.zone.answer(question)
	if said.silent {
		n.journal.queries.add(seen)
		return
	}
	reply.Rcode = said.rcode
	reply.Answer = said.records
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: header(".", dns.TypeSOA, ttl), Ns: "ns.example.", Mbox: "nobody.example.",
			Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
		}}
	}
	seen.Rcode = dns.RcodeToString[reply.Rcode]
	for _, record := range reply.Answer {
		seen.Answers = append(seen.Answers, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	n.journal.queries.add(seen)
	size := dns.MaxMsgSize
	if network == "udp" {
		size = dns.MinMsgSize
		if edns := r.IsEdns0(); edns != nil {
			size = int(edns.UDPSize())
			reply.SetEdns0(edns.UDPSize(), false)
		}
	}
	reply.Truncate(size)
	if err := w.WriteMsg(reply); err != nil {
		n.log.Error("answer a name server query", "name", seen.Name, "error", err)
	}
}

// machineNameServers reads the name servers of /etc/resolv.conf. Where it names
// none, that is the one on this machine (resolv.conf(5)).
func machineNameServers() []netip.Addr {
	var out []netip.Addr
	if conf, err := dns.ClientConfigFromFile(resolvConf); err == nil {
		for _, server := range conf.Servers {
			if addr, err := netip.ParseAddr(server); err == nil && addr.Zone() == "" {
				out = append(out, addr)
			}
		}
	}
	if len(out) == 0 {
		out = addrs("127.0.0.1")
	}
	return out
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// anyAddress lets a socket bind to an IPv6 address that only a route makes local
// (IP_FREEBIND, ip(7); the kernel refuses it otherwise, unlike with IPv4).
var anyAddress = net.ListenConfig{
	Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		})
		if err != nil {
			return err
		}
		return failed
	},
}

func listenIn(space netns.NsHandle, at netip.AddrPort) (l net.Listener, err error) {
	err = runIn(space, func() error {
		l, err = anyAddress.Listen(context.Background(), "tcp", at.String())
		return err
	})
	return l, err
}

func listenPacketIn(space netns.NsHandle, at netip.AddrPort) (c net.PacketConn, err error) {
	err = runIn(space, func() error {
		c, err = anyAddress.ListenPacket(context.Background(), "udp", at.String())
		return err
	})
	return c, err
}
