// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// slow is an upstream that does not answer before it is told to.
type slow struct {
	asked   atomic.Int64
	release chan struct{}
}

func (s *slow) Ask(context.Context, string, uint16) (*dns.Msg, error) {
	s.asked.Add(1)
	<-s.release
	return new(dns.Msg), nil
}

// asker is where a server writes its answers.
type asker struct {
	dns.ResponseWriter
	answered func(*dns.Msg)
}

func (a asker) LocalAddr() net.Addr       { return &net.TCPAddr{} }
func (a asker) WriteMsg(m *dns.Msg) error { a.answered(m); return nil }

// TestQueriesAreBounded asks for more than the upstream answers.
func TestQueriesAreBounded(t *testing.T) {
	upstream := &slow{release: make(chan struct{})}
	s := &Server{Table: NewTable(nil), Upstream: upstream, Gate: openGate{}}
	var refused, answered atomic.Int64
	var wg sync.WaitGroup
	for range 2 * maxQueries {
		wg.Go(func() {
			s.serve(t.Context(), asker{answered: func(m *dns.Msg) {
				if answered.Add(1); m.Rcode == dns.RcodeServerFailure {
					refused.Add(1)
				}
			}}, new(dns.Msg).SetQuestion("a.example.", dns.TypeA))
		})
	}
	for late := time.Now().Add(time.Minute); (refused.Load() < maxQueries || upstream.asked.Load() < maxQueries) && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
	if n := upstream.asked.Load(); n != maxQueries {
		t.Errorf("%d queries went upstream at a time, want %d", n, maxQueries)
	}
	close(upstream.release)
	wg.Wait()
	if refused.Load() != maxQueries || answered.Load() != 2*maxQueries {
		t.Errorf("%d of %d queries were refused", refused.Load(), answered.Load())
	}
	s.serve(t.Context(), asker{answered: func(m *dns.Msg) {
		if m.Rcode == dns.RcodeServerFailure {
			t.Error("a later query was refused")
		}
	}}, new(dns.Msg).SetQuestion("a.example.", dns.TypeA))
}

// TestConnectionsToTheServerAreBounded opens more than are served, and none of
// them says anything.
func TestConnectionsToTheServerAreBounded(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	s, _ := newServer()
	go func() { defer close(served); s.Serve(ctx, nil, []*net.TCPListener{l}) }()
	var conns []net.Conn
	for range maxConnections + 1 {
		conn, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	conn := &dns.Conn{Conn: conns[maxConnections]}
	conn.SetDeadline(time.Now().Add(time.Second))
	query := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	if err := conn.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	// A slow test has the first ones closed, as they say nothing.
	if answer, err := conn.ReadMsg(); err == nil && allOpen(conns[:maxConnections]) {
		t.Errorf("one connection too many was answered: %v", answer)
	}
	cancel()
	<-served
}

func allOpen(conns []net.Conn) bool {
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return true
}

func TestLargeAnswersAreNotKept(t *testing.T) {
	u := NewUpstream(nil, nil, nil)
	for n, want := range map[int]bool{10: true, 4000: false} {
		m := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
		for i := range n {
			a := netip.AddrFrom4([4]byte{8, 8, byte(i >> 8), byte(i)})
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: a.AsSlice()})
		}
		q := question{"a.example.", dns.TypeA}
		clear(u.cache)
		u.store(q, m)
		if kept := u.cached(q) != nil; kept != want {
			t.Errorf("%d addresses: kept %v", n, kept)
		}
	}
}
