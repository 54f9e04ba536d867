// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"openshell.ai/openshell/netns"
)

type openGate struct{}

func (openGate) MayResolve(string) bool { return true }
func (openGate) Refused(string)         {}

// namespace returns a sealed namespace with its interception rules.
func namespace(t *testing.T) *netns.Namespace {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if _, err := netns.Seal(n, nil); err != nil {
		t.Fatal(err)
	}
	return n
}

func serveDNS(t *testing.T, n *netns.Namespace, at netip.AddrPort, h dns.HandlerFunc) {
	t.Helper()
	c, err := n.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: c, Handler: h}
	go server.ActivateAndServe()
	t.Cleanup(func() { c.Close() })
}

func reply(w dns.ResponseWriter, query *dns.Msg, address string) {
	m := new(dns.Msg).SetReply(query)
	m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(address)})
	w.WriteMsg(m)
}

// The engine's resolver knows its containers, and forwards what it does not know
// by the sandbox's own server.
func TestEmbeddedResolver(t *testing.T) {
	inner, outer := namespace(t), namespace(t)
	if err := netns.Intercept(inner, nil); err != nil {
		t.Fatal(err)
	}
	outside := netip.MustParseAddrPort("127.0.0.1:5300")
	serveDNS(t, outer, outside, func(w dns.ResponseWriter, query *dns.Msg) { reply(w, query, "192.0.2.7") })
	serveDNS(t, inner, netip.AddrPortFrom(netns.EngineResolver, 53), func(w dns.ResponseWriter, query *dns.Msg) {
		if query.Question[0].Name == "peer." {
			reply(w, query, "172.18.0.2")
			return
		}
		conn, err := inner.Dial(context.Background(), "udp", netip.MustParseAddrPort("198.51.100.53:53"))
		if err != nil {
			return
		}
		defer conn.Close()
		client := dns.Client{Timeout: 5 * time.Second}
		answer, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: conn})
		if err == nil {
			w.WriteMsg(answer)
		}
	})
	u := NewUpstream(outer, []netip.AddrPort{outside}, nil)
	u.UseEmbedded(inner)
	packets, err := inner.ListenPacket(netip.AddrPortFrom(netns.ProxyAddr4, netns.DNSPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Table: NewTable(nil), Upstream: u, Gate: openGate{}, Forwarded: u.Forwarded}
	go server.Serve(t.Context(), []*net.UDPConn{packets}, nil)

	for name, want := range map[string]string{"peer": "172.18.0.2", "web.example": "192.0.2.7"} {
		addrs, err := u.Resolve(t.Context(), name)
		if err != nil || len(addrs) == 0 || addrs[0].String() != want {
			t.Errorf("%s is %v, %v; want %s", name, addrs, err, want)
		}
	}
	question := new(dns.Msg).SetQuestion("web.example.", dns.TypeA)
	if answer := u.Forwarded(t.Context(), question); answer != nil {
		t.Errorf("a question that nobody has asked is taken for a forwarded one: %v", answer)
	}
}
