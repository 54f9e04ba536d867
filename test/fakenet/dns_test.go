// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask sends one question from the outer namespace.
func ask(t *testing.T, n *Net, network, server, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	conn, err := n.DialContext(t.Context(), network, server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := &dns.Client{Net: network, Timeout: time.Minute}
	if name == SilentHost {
		client.Timeout = 500 * time.Millisecond
	}
	reply, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), &dns.Conn{Conn: conn})
	return reply, err
}

func answers(msg *dns.Msg) []string {
	var out []string
	for _, record := range msg.Answer {
		out = append(out, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	return out
}

var zoneTests = []struct {
	name  string
	qtype uint16
	rcode int
	want  []string
}{
	{WeatherHost, dns.TypeA, dns.RcodeSuccess, []string{"45.64.45.10"}},
	{WeatherHost, dns.TypeAAAA, dns.RcodeSuccess, []string{"2a0e:b107:45::a"}},
	{"API.Weather.EXAMPLE", dns.TypeA, dns.RcodeSuccess, []string{"45.64.45.10"}},
	{WeatherHost, dns.TypeHTTPS, dns.RcodeSuccess, nil},
	{"weather.example", dns.TypeA, dns.RcodeSuccess, nil},
	{"a.b." + CDNHost, dns.TypeA, dns.RcodeSuccess, []string{"45.64.45.14"}},
	{CNAMEHost, dns.TypeA, dns.RcodeSuccess, []string{WeatherHost + ".", "45.64.45.10"}},
	{IPv4OnlyHost, dns.TypeAAAA, dns.RcodeSuccess, nil},
	{IPv6OnlyHost, dns.TypeA, dns.RcodeSuccess, nil},
	{IPv6OnlyHost, dns.TypeAAAA, dns.RcodeSuccess, []string{"2a0e:b107:45::a"}},
	{TextHost, dns.TypeTXT, dns.RcodeSuccess, []string{`"hello from fakenet"`}},
	{TextHost, dns.TypeA, dns.RcodeSuccess, nil},
	{ServiceName, dns.TypeSRV, dns.RcodeSuccess, []string{"0 0 80 api.github.example."}},
	{ServiceName, dns.TypeA, dns.RcodeSuccess, nil},
	{ServfailHost, dns.TypeA, dns.RcodeServerFailure, nil},
	{"nobody.example", dns.TypeA, dns.RcodeNameError, nil},
	{"github.com", dns.TypeAAAA, dns.RcodeNameError, nil},
	{PrivateHost, dns.TypeA, dns.RcodeSuccess, []string{"10.45.0.10"}},
	{CNAMEPrivate, dns.TypeA, dns.RcodeSuccess, []string{PrivateHost + ".", "10.45.0.10"}},
	{MixedHost, dns.TypeA, dns.RcodeSuccess, []string{"45.64.45.10", "10.45.0.10"}},
	{GoogleMetadata, dns.TypeA, dns.RcodeSuccess, []string{"169.254.169.254"}},
	{LoopbackHost, dns.TypeAAAA, dns.RcodeSuccess, []string{"::1"}},
	{MappedHost, dns.TypeAAAA, dns.RcodeSuccess, []string{"::ffff:10.45.0.10"}},
	{NAT64Host, dns.TypeAAAA, dns.RcodeSuccess, []string{"64:ff9b::a9fe:a9fe"}},
	{"1." + RangesHost, dns.TypeA, dns.RcodeSuccess, []string{"10.45.0.10"}},
	{"99." + RangesHost, dns.TypeA, dns.RcodeNameError, nil},
	{"-1." + RangesHost, dns.TypeA, dns.RcodeNameError, nil},
}

func TestZoneOverUDPAndTCP(t *testing.T) {
	n := newNet(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []string{n.DNS().String(), n.DNS6().String()} {
			for _, test := range zoneTests {
				reply, err := ask(t, n, network, server, test.name, test.qtype)
				if err != nil {
					t.Errorf("%s %s %s: %v", network, server, test.name, err)
					continue
				}
				if got := answers(reply); reply.Rcode != test.rcode || !slices.Equal(got, test.want) {
					t.Errorf("%s %s: got %s %q, want %s %q", test.name, dns.TypeToString[test.qtype],
						dns.RcodeToString[reply.Rcode], got, dns.RcodeToString[test.rcode], test.want)
				}
			}
		}
	}
	if got, want := len(n.Queries()), 4*len(zoneTests); got != want {
		t.Errorf("%d queries recorded, want %d", got, want)
	}
}

func TestRebindIsPublicOnceAndResetRestartsIt(t *testing.T) {
	n := newNet(t)
	for range 2 {
		for i, want := range []string{"45.64.45.10", "10.45.0.10", "10.45.0.10"} {
			reply, err := ask(t, n, "udp", n.DNS().String(), RebindHost, dns.TypeA)
			if err != nil {
				t.Fatal(err)
			}
			if got := answers(reply); !slices.Equal(got, []string{want}) {
				t.Errorf("answer %d: got %q, want %s", i, got, want)
			}
			if ttl := reply.Answer[0].Header().Ttl; ttl != 0 {
				t.Errorf("answer %d: TTL %d", i, ttl)
			}
		}
		n.Reset()
	}
}

func TestBigAnswersAreTruncatedOverUDPOnly(t *testing.T) {
	n := newNet(t)
	reply, err := ask(t, n, "udp", n.DNS().String(), BigHost, dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Truncated || len(reply.Answer) >= bigAnswers {
		t.Errorf("udp: truncated %v, %d answers", reply.Truncated, len(reply.Answer))
	}
	reply, err = ask(t, n, "tcp", n.DNS().String(), BigHost, dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Truncated || len(reply.Answer) != bigAnswers {
		t.Errorf("tcp: truncated %v, %d answers", reply.Truncated, len(reply.Answer))
	}
}

func TestSilentNameIsNotAnsweredButRecorded(t *testing.T) {
	n := newNet(t)
	if reply, err := ask(t, n, "udp", n.DNS().String(), SilentHost, dns.TypeA); err == nil {
		t.Errorf("got an answer: %v", reply)
	}
	queries := n.Queries()
	if len(queries) != 1 || queries[0].Name != SilentHost || queries[0].Rcode != "" {
		t.Errorf("recorded %+v", queries)
	}
}

func TestQueriesAreRecorded(t *testing.T) {
	n := newNet(t)
	if _, err := ask(t, n, "tcp", n.DNS().String(), "Secret.Data.example", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	queries := n.Queries()
	if len(queries) != 1 {
		t.Fatalf("%d queries recorded, want 1", len(queries))
	}
	got := queries[0]
	if from, err := netip.ParseAddrPort(got.Remote); err != nil || from.Addr() != OuterAddrs()[0] {
		t.Errorf("remote %q, want %s", got.Remote, OuterAddrs()[0])
	}
	if got.Name != "Secret.Data.example" || got.Type != "TXT" || got.Network != "tcp" || got.Rcode != "NXDOMAIN" {
		t.Errorf("recorded %+v", got)
	}
	n.Reset()
	if left := n.Queries(); len(left) != 0 {
		t.Errorf("after reset: %+v", left)
	}
}

// The machine's own resolver configuration works inside, whatever it says.
func TestMachineNameServersAnswer(t *testing.T) {
	n := newNet(t)
	for _, server := range machineNameServers() {
		reply, err := ask(t, n, "udp", netip.AddrPortFrom(server, 53).String(), WeatherHost, dns.TypeA)
		if err != nil {
			t.Errorf("%s: %v", server, err)
		} else if got := answers(reply); !slices.Equal(got, []string{"45.64.45.10"}) {
			t.Errorf("%s: got %q", server, got)
		}
	}
}

func TestDialContextSaysWhichNameIsMissing(t *testing.T) {
	n := newNet(t)
	_, err := n.DialContext(context.Background(), "tcp", "nobody.example:80")
	if err == nil || !strings.Contains(err.Error(), "nobody.example") || os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
}
