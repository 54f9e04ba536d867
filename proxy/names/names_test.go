// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// zone answers from a fixed set of records and counts what it was asked.
type zone struct {
	a     map[string]string
	txt   map[string]string
	fail  map[string]bool
	asked []string

	authority []dns.RR
}

func (z *zone) Ask(_ context.Context, name string, qtype uint16) (*dns.Msg, error) {
	z.asked = append(z.asked, name+" "+dns.TypeToString[qtype])
	if z.fail[name] {
		return nil, errors.New("no answer")
	}
	m := &dns.Msg{Ns: z.authority}
	h := dns.RR_Header{Name: dns.Fqdn(name), Rrtype: qtype, Class: dns.ClassINET, Ttl: 10}
	_, known := z.a[name]
	if !known {
		m.Rcode = dns.RcodeNameError
		return m, nil
	}
	switch qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.ParseIP(z.a[name])})
	case dns.TypeTXT:
		m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{z.txt[name]}})
		m.Extra = append(m.Extra, &dns.A{Hdr: h, A: net.ParseIP(z.a[name])})
	}
	return m, nil
}

type gate map[string]bool

func (g gate) MayResolve(name string) bool { return g[name] }
func (gate) Refused(string)                {}

func newServer() (*Server, *zone) {
	z := &zone{
		a:    map[string]string{"api.example.com": "93.184.216.34", "evil.example.org": "6.6.6.6"},
		txt:  map[string]string{"api.example.com": "hello"},
		fail: map[string]bool{"broken.example.com": true},
	}
	g := gate{"api.example.com": true, "gone.example.com": true, "broken.example.com": true}
	return &Server{Table: NewTable(nil), Upstream: z, Gate: g, Search: []string{"corp.internal", "example.com"}, IPv6: true}, z
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string // the answer's data, "" for none
		asked bool
	}{
		{"api.example.com.", dns.TypeA, dns.RcodeSuccess, "198.18.0.1", true},
		{"API.Example.COM.", dns.TypeA, dns.RcodeSuccess, "198.18.0.1", true},
		{"api.example.com.", dns.TypeAAAA, dns.RcodeSuccess, "", true},
		{"gone.example.com.", dns.TypeA, dns.RcodeNameError, "", true},
		{"broken.example.com.", dns.TypeA, dns.RcodeServerFailure, "", true},
		{"evil.example.org.", dns.TypeA, dns.RcodeSuccess, "198.18.0.1", false},
		{"evil.example.org.", dns.TypeAAAA, dns.RcodeSuccess, "fd6f:7065:6e73:1::1", false},
		{"evil.example.org.", dns.TypeTXT, dns.RcodeNameError, "", false},
		{"c2VjcmV0.evil.example.org.", dns.TypeA, dns.RcodeSuccess, "198.18.0.1", false},
		{"api.example.com.corp.internal.", dns.TypeA, dns.RcodeNameError, "", false},
		{"api.", dns.TypeA, dns.RcodeNameError, "", true}, // example.com makes a host of it that there is
		{"api.", dns.TypeAAAA, dns.RcodeNameError, "", true},
		{"gone.", dns.TypeA, dns.RcodeSuccess, "198.18.0.1", true}, // and here it makes none
		{"api.example.com.", dns.TypeTXT, dns.RcodeSuccess, "hello", true},
		{"api.example.com.", dns.TypeHTTPS, dns.RcodeSuccess, "", false},
		{"api.example.com.", dns.TypeANY, dns.RcodeSuccess, "", false},
		{"localhost.", dns.TypeA, dns.RcodeSuccess, "127.0.0.1", false},
		{"localhost.", dns.TypeAAAA, dns.RcodeSuccess, "::1", false},
		{"9.9.18.198.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", false},
		{"34.216.184.93.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", false},
	} {
		t.Run(tt.name+dns.TypeToString[tt.qtype], func(t *testing.T) {
			s, z := newServer()
			q := new(dns.Msg)
			q.SetQuestion(tt.name, tt.qtype)
			reply := s.Answer(t.Context(), q)
			if reply.Rcode != tt.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[reply.Rcode], dns.RcodeToString[tt.rcode])
			}
			if got := data(reply); got != tt.want {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			if (len(z.asked) > 0) != tt.asked {
				t.Errorf("upstream was asked %v", z.asked)
			}
			if len(reply.Extra) > 0 {
				t.Errorf("additional records %v", reply.Extra)
			}
		})
	}
}

// What the DNS servers do not know gets an address where the site's proxy may know it, but for what a search domain
// made and for what one makes a host of.
func TestNamesThatTheProxyResolves(t *testing.T) {
	for name, want := range map[string]int{
		"gone.other.example.": dns.RcodeSuccess, "broken.other.example.": dns.RcodeSuccess, "direct.other.example.": dns.RcodeNameError,
		"gone.example.com.": dns.RcodeNameError, "www.sub.": dns.RcodeNameError, "api.": dns.RcodeNameError,
	} {
		s, z := newServer()
		z.a["www.sub.example.com"], z.fail["broken.other.example"] = "93.184.216.34", true
		s.Gate = openGate{}
		s.Elsewhere = func(name string) bool { return name != "direct.other.example" }
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			reply := s.Answer(t.Context(), new(dns.Msg).SetQuestion(name, qtype))
			if reply.Rcode != want || (len(reply.Answer) > 0) != (want == dns.RcodeSuccess) {
				t.Errorf("%s %s: %v", name, dns.TypeToString[qtype], reply)
			}
		}
	}
	s, _ := newServer()
	s.Elsewhere = func(string) bool { return true }
	if reply := s.Answer(t.Context(), new(dns.Msg).SetQuestion("c2VjcmV0.evil.example.org.", dns.TypeTXT)); reply.Rcode != dns.RcodeNameError {
		t.Errorf("a type without addresses: %v", reply)
	}
}

func data(m *dns.Msg) string {
	if len(m.Answer) == 0 {
		return ""
	}
	switch rr := m.Answer[0].(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	case *dns.TXT:
		return rr.Txt[0]
	case *dns.PTR:
		return rr.Ptr
	}
	return "?"
}

func TestPointerNamesTheSyntheticAddress(t *testing.T) {
	s, _ := newServer()
	v4, v6, _ := s.Table.Addresses("api.example.com")
	for _, a := range []netip.Addr{v4, v6} {
		name, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypePTR)
		if got := data(s.Answer(t.Context(), q)); got != "api.example.com." {
			t.Errorf("PTR of %s: %q", a, got)
		}
	}
}

func TestTableIsStableAndBounded(t *testing.T) {
	table := NewTable(nil)
	a4, a6, _ := table.Addresses("a")
	b4, _, _ := table.Addresses("b")
	if again, _, _ := table.Addresses("a"); again != a4 || a4 == b4 {
		t.Errorf("addresses a %s, %s; b %s", a4, again, b4)
	}
	for _, a := range []netip.Addr{a4, a6} {
		if name, ok := table.Name(a); !ok || name != "a" {
			t.Errorf("Name(%s) = %q, %v", a, name, ok)
		}
	}
	for _, s := range []string{"198.18.0.0", "198.18.9.9", "1.2.3.4", "fd6f:7065:6e73:1::", "fd6f:7065:6e73:1:1::1"} {
		if name, ok := table.Name(netip.MustParseAddr(s)); ok {
			t.Errorf("Name(%s) = %q", s, name)
		}
	}
	table.names = make([]string, maxNames)
	if _, _, ok := table.Addresses("one too many"); ok {
		t.Error("a full table took one more name")
	}
}

func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("api.example.com.", dns.TypeA)
	seed, _ := q.Pack()
	f.Add(seed)
	q.SetQuestion("1.0.18.198.in-addr.arpa.", dns.TypePTR)
	seed, _ = q.Pack()
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var query dns.Msg
		if query.Unpack(b) != nil {
			return
		}
		s, _ := newServer()
		reply := s.Answer(t.Context(), &query)
		if _, err := reply.Pack(); err != nil && len(query.Question) == 1 {
			t.Errorf("reply to %v does not pack: %v", query.Question, err)
		}
	})
}

// Negative answers keep the start of authority, whose last field says how long
// they hold (RFC 2308).
func TestNegativeAnswersKeepTheSOA(t *testing.T) {
	s, z := newServer()
	soa, err := dns.NewRR("example.com. 60 IN SOA ns.example.com. root.example.com. 1 2 3 4 60")
	if err != nil {
		t.Fatal(err)
	}
	z.authority = []dns.RR{soa}
	for _, q := range []struct {
		name  string
		qtype uint16
		rcode int
	}{
		{"gone.example.com.", dns.TypeA, dns.RcodeNameError},
		{"api.example.com.", dns.TypeAAAA, dns.RcodeSuccess},
		{"api.example.com.", dns.TypeMX, dns.RcodeSuccess},
	} {
		m := s.Answer(context.Background(), new(dns.Msg).SetQuestion(q.name, q.qtype))
		if m.Rcode != q.rcode || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("%v: %v", q, m)
		}
	}
}

func TestUnknownEDNSVersionIsRefused(t *testing.T) {
	s, z := newServer()
	query := new(dns.Msg).SetQuestion("api.example.com.", dns.TypeA)
	query.SetEdns0(1232, false)
	query.IsEdns0().SetVersion(1)
	m := s.Answer(context.Background(), query)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	if reply.Rcode != dns.RcodeBadVers || len(z.asked) != 0 {
		t.Errorf("%v", reply)
	}
}

func TestTheLocalNameNeverLeaves(t *testing.T) {
	s, z := newServer()
	s.Gate = gate{LocalHost: true} // even where a rule names it
	s.Local = true
	for qtype, want := range map[uint16]int{dns.TypeA: 1, dns.TypeAAAA: 1, dns.TypeTXT: 0} {
		reply := s.Answer(t.Context(), new(dns.Msg).SetQuestion("Policy.LOCAL.", qtype))
		if reply.Rcode != dns.RcodeSuccess || len(reply.Answer) != want {
			t.Errorf("%s: %v", dns.TypeToString[qtype], reply)
		}
	}
	if len(z.asked) > 0 {
		t.Errorf("asked upstream: %v", z.asked)
	}
	s.Local = false
	s.Answer(t.Context(), new(dns.Msg).SetQuestion("policy.local.", dns.TypeA))
	if len(z.asked) != 1 {
		t.Error("where nobody answers, it is not like any other name")
	}
}

// A table that takes over has the addresses of the one before, and gives nobody's
// to another name.
func TestTableRestored(t *testing.T) {
	type entry struct {
		i    uint32
		name string
	}
	var saved []entry
	table := NewTable(func(i uint32, name string) error {
		if name == "unsaved.example" {
			return errors.New("no room")
		}
		saved = append(saved, entry{i, name})
		return nil
	})
	addresses := map[string]netip.Addr{}
	for _, name := range []string{"a.example", "b.example", "c.example", "a.example"} {
		addresses[name], _, _ = table.Addresses(name)
	}
	if _, _, ok := table.Addresses("unsaved.example"); ok {
		t.Error("a name has an address that would be lost")
	}
	again := NewTable(nil)
	for _, e := range []entry{saved[0], saved[2]} { // the second was lost
		again.Restore(e.i, e.name)
	}
	if name, ok := again.Name(addresses["b.example"]); ok {
		t.Errorf("the address of a lost name is %s's", name)
	}
	for _, name := range []string{"a.example", "c.example"} {
		if a, _, ok := again.Addresses(name); !ok || a != addresses[name] {
			t.Errorf("%s has %s, had %s", name, a, addresses[name])
		}
	}
	if a, _, _ := again.Addresses("new.example"); a == addresses["b.example"] || a == addresses["c.example"] {
		t.Errorf("new.example has %s", a)
	}
	again.Restore(maxNames, "beyond.example")
}
