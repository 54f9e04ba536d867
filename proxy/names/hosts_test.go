// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const hostsText = `127.0.0.1	localhost
::1	localhost ip6-localhost
# written by the engine
10.1.2.3	db.corp.example DB   # --add-host
10.1.2.3	cache.
fd00::7%eth0	db.corp.example
169.254.1.2 host.containers.internal host.docker.internal
not-an-address name
10.9.9.9
10.9.9.8 bad..name
`

func TestParseHosts(t *testing.T) {
	h := ParseHosts(hostsText)
	for _, tt := range []struct{ name, want string }{
		{"db.corp.example", "10.1.2.3 fd00::7"},
		{"db", "10.1.2.3"},
		{"cache", "10.1.2.3"},
		{"host.docker.internal", "169.254.1.2"},
		{"localhost", ""}, // never leaves the container
		{"name", ""},
		{"bad..name", ""},
		{"other", ""},
	} {
		var got []string
		for _, a := range h.Addresses(tt.name) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, s, tt.want)
		}
	}
	if got := h.Names(netip.MustParseAddr("::ffff:10.1.2.3")); !slices.Equal(got, []string{"db.corp.example", "db", "cache"}) {
		t.Errorf("names of 10.1.2.3: %q", got)
	}
	var none *Hosts
	if none.Addresses("db") != nil || none.Names(netip.MustParseAddr("10.1.2.3")) != nil {
		t.Error("the nil value has names")
	}
}

// Containers of a pod have files of their own.
func TestHostsOfSeveralFiles(t *testing.T) {
	h := ParseHosts("10.1.2.3 db cache\n10.1.2.4 db\n10.1.2.9 a\n")
	if got := h.Add("10.1.2.4 db\n10.1.2.3 db\n10.1.2.3 queue\n10.6.6.6 a A\n"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("contradicted: %q", got)
	}
	for _, tt := range []struct{ name, want string }{
		{"db", "[10.1.2.3 10.1.2.4]"}, {"queue", "[10.1.2.3]"}, {"a", "[10.1.2.9]"},
	} {
		if got := fmt.Sprint(h.Addresses(tt.name)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := h.Names(netip.MustParseAddr("10.1.2.3")); !slices.Equal(got, []string{"db", "cache", "queue"}) {
		t.Errorf("names of 10.1.2.3: %q", got)
	}
	if got := h.Names(netip.MustParseAddr("10.6.6.6")); len(got) > 0 {
		t.Errorf("names of 10.6.6.6: %q", got)
	}
}

func TestParseHostsIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 3 * maxHosts {
		b.WriteString("10.0.0.1 h" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + dns.Fqdn("n") + strings.Repeat("y", i/26%60) + "\n")
	}
	h := ParseHosts(b.String())
	for i := range 3 * maxHosts {
		h.Add(fmt.Sprintf("10.0.0.2 more%d", i))
	}
	if n := len(h.addrs); n > maxHosts {
		t.Errorf("%d names", n)
	}
}

// What the hosts file says of a name is not asked of a server.
func TestUpstreamLooksIntoHostsFirst(t *testing.T) {
	u := NewUpstream(nil, nil, ParseHosts(hostsText))
	addrs, err := u.Resolve(context.Background(), "db.corp.example")
	if err != nil || len(addrs) != 2 {
		t.Errorf("%v, %v", addrs, err)
	}
	if msg, err := u.Ask(context.Background(), "db.", dns.TypeAAAA); err != nil || len(msg.Answer) != 0 || msg.Rcode != dns.RcodeSuccess {
		t.Errorf("a name without an IPv6 address: %v, %v", msg, err)
	}
	if _, err := u.Ask(context.Background(), "db.corp.example", dns.TypeMX); err == nil {
		t.Error("other types are not in the hosts file")
	}
	if _, err := u.Resolve(context.Background(), "elsewhere.example"); err == nil {
		t.Error("other names are not in the hosts file")
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add(hostsText)
	f.Fuzz(func(t *testing.T, text string) {
		h := ParseHosts(text)
		for name, addrs := range h.addrs {
			for _, a := range addrs {
				if a.IsLoopback() || a.Zone() != "" || !slices.Contains(h.Names(a), name) {
					t.Errorf("%s: %s", name, a)
				}
			}
		}
	})
}
