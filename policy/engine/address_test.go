// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

func TestCheckAddress(t *testing.T) {
	base := policytest.Network(t, `
exact:
  endpoints: [{ host: exact.corp.example, ports: [443, 6443] }]
literal:
  endpoints: [{ host: 10.9.9.9, port: 443 }]
wild:
  endpoints: [{ host: "*.wild.example", ports: [443, 6443] }]
listed:
  endpoints: [{ host: listed.corp.example, ports: [443, 2379], allowed_ips: [10.20.0.0/16, "fd12::/32"] }]
listed_wild:
  endpoints: [{ host: "*.corp.example", port: 8443, allowed_ips: [10.20.0.0/16] }]
hostless:
  endpoints: [{ port: 9100, allowed_ips: [10.40.0.0/16] }]
meta:
  endpoints: [{ host: metadata.google.internal, port: 80 }]
`)
	learned := policytest.Network(t, `
l_exact:
  endpoints: [{ host: learned.corp.example, port: 443 }, { host: 10.9.9.8, port: 443 }]
  binaries: [{ path: /b }]
l_listed:
  endpoints: [{ host: both.corp.example, port: 443, allowed_ips: [10.50.0.0/16] }]
  binaries: [{ path: /b }]
l_over_wild:
  endpoints: [{ host: api.corp.example, port: 8443 }]
  binaries: [{ path: /b }]
l_beside_hostless:
  endpoints: [{ host: public.example, port: 9100 }]
  binaries: [{ path: /b }]
l_over_listed:
  endpoints: [{ host: listed.corp.example, port: 443 }]
  binaries: [{ path: /b }]
`)
	e := mustCompile(t, policy.Merge(base, learned))
	tests := []struct {
		host   string
		port   uint16
		addr   string
		reason string // "" passes
	}{
		{"exact.corp.example", 443, "10.0.0.1", ""}, // the operator named it
		{"exact.corp.example", 443, "8.8.8.8", ""},
		{"exact.corp.example", 443, "127.0.0.1", "internal address: 127.0.0.1 is always blocked (loopback)"},
		{"exact.corp.example", 443, "::ffff:169.254.169.254", "is always blocked (link-local)"},
		{"exact.corp.example", 6443, "10.0.0.1", "port 6443 is a blocked control-plane port, connection rejected"},
		{"10.9.9.9", 443, "10.9.9.9", ""},
		{"x.wild.example", 443, "8.8.8.8", ""},
		{"x.wild.example", 6443, "8.8.8.8", ""}, // public only: no port is special
		{"x.wild.example", 443, "10.0.0.1", "internal address: 10.0.0.1 is not public"},
		{"listed.corp.example", 443, "10.20.1.1", ""},
		{"listed.corp.example", 443, "::ffff:10.20.1.1", ""},
		{"listed.corp.example", 443, "fd12::1", ""},
		{"listed.corp.example", 443, "10.21.1.1", "allowed_ips check failed: 10.21.1.1 is not within the endpoint's allowed_ips"},
		{"listed.corp.example", 443, "8.8.8.8", "allowed_ips check failed"}, // the learned rule does not loosen the list
		{"listed.corp.example", 2379, "10.20.1.1", "port 2379 is a blocked control-plane port"},
		{"y.corp.example", 8443, "10.20.1.1", ""},
		{"y.corp.example", 8443, "8.8.8.8", "allowed_ips check failed"},
		{"api.corp.example", 8443, "10.20.1.1", ""}, // approving a rule takes nothing away
		{"api.corp.example", 8443, "10.21.1.1", "allowed_ips check failed"},
		{"any.test", 9100, "10.40.0.1", ""},
		{"any.test", 9100, "8.8.8.8", "allowed_ips check failed"},
		{"public.example", 9100, "8.8.8.8", ""}, // its own rule grants it
		{"learned.corp.example", 443, "8.8.8.8", ""},
		{"learned.corp.example", 443, "10.0.0.1", "internal address: 10.0.0.1 is not public; allow it with allowed_ips"},
		{"10.9.9.8", 443, "10.9.9.8", "internal address"},
		{"both.corp.example", 443, "10.50.0.1", ""},
		{"both.corp.example", 443, "10.51.0.1", "allowed_ips check failed"},
		{"metadata.google.internal", 80, "8.8.8.8", "the host is a cloud metadata service"},
		{"denied.example", 443, "8.8.8.8", ""}, // permissive: public only
		{"denied.example", 443, "10.0.0.1", "is not public"},
		{"denied.example", 443, "::1", "is always blocked (loopback)"},
	}
	for _, tt := range tests {
		m := e.Connect(Connection{Binary: "/b", Host: tt.host, Port: tt.port})
		if m.Allowed == strings.HasPrefix(tt.host, "denied.") {
			t.Fatalf("%s:%d: allowed %v", tt.host, tt.port, m.Allowed)
		}
		addr := netip.MustParseAddr(tt.addr)
		err := m.CheckAddress(addr, tt.port)
		if tt.reason == "" {
			if err != nil {
				t.Errorf("%s:%d at %s: %v", tt.host, tt.port, tt.addr, err)
			}
			continue
		}
		var refused *AddressError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, tt.reason) || refused.Addr != addr {
			t.Errorf("%s:%d at %s: %v, want %s", tt.host, tt.port, tt.addr, err, tt.reason)
		}
	}
	if err := (Match{}).CheckAddress(netip.Addr{}, 443); err == nil {
		t.Error("the zero address passed")
	}
}

// Of a name that only the site's proxy can resolve nothing can be said by its address.
func TestCheckUnresolved(t *testing.T) {
	p := policytest.Network(t, `
named:
  endpoints: [{ host: named.example, ports: [443, 9100] }, { host: metadata.google.internal, port: 80 }]
listed:
  endpoints: [{ host: listed.example, port: 443, allowed_ips: [10.20.0.0/16] }, { host: "*.wild.example", port: 443, allowed_ips: [10.20.0.0/16] }]
beside:
  endpoints: [{ host: own.wild.example, port: 443 }]
hostless:
  endpoints: [{ port: 9100, allowed_ips: [10.40.0.0/16] }]
alias:
  endpoints: [{ host: host.containers.internal, port: 443 }]
`)
	e, err := Compile(p, Options{HostAliases: map[string][]netip.Addr{"host.containers.internal": {netip.MustParseAddr("169.254.1.2")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host   string
		port   uint16
		reason string // "" passes
	}{
		{"named.example", 443, ""},
		{"named.example", 9100, ""},
		{"own.wild.example", 443, ""},
		{"other.example", 443, ""}, // permissive mode
		{"listed.example", 443, "allowed_ips check failed"},
		{"x.wild.example", 443, "allowed_ips check failed"},
		{"other.example", 9100, "allowed_ips check failed"},
		{"metadata.google.internal", 80, "cloud metadata"},
		{"metadata.google.internal", 8080, "cloud metadata"},
		{"host.containers.internal", 443, "trusted-gateway check failed"},
	} {
		err := e.Connect(Connection{Binary: "/b", Host: tt.host, Port: tt.port}).CheckUnresolved()
		if (err == nil) != (tt.reason == "") || err != nil && !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s:%d: %v, want %q", tt.host, tt.port, err, tt.reason)
		}
	}
}

// A site's own ranges are as public as others, but for what is always blocked and for
// control planes.
func TestTrustedRanges(t *testing.T) {
	p, _, err := policy.Parse([]byte("version: 1\nnetwork_policies: {r: {endpoints: [{host: known.example, port: 443}]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Network {
		r.Learned, r.Binaries = true, []policy.Binary{{Path: "/b"}}
	}
	e, err := Compile(p, Options{Trusted: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd20::/16"), netip.MustParsePrefix("fd00::/16")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"known.example", "other.example"} { // the second by permissive mode
		m := e.Connect(Connection{Binary: "/b", Host: host, Port: 443})
		for addr, want := range map[string]bool{
			"10.20.3.4": true, "::ffff:10.20.3.4": true, "fd20::1": true, "8.8.8.8": true,
			"10.21.0.1": false, "fd21::1": false, "fd00:ec2::254": false, "169.254.169.254": false, "127.0.0.1": false, "64:ff9b::10.20.3.4": false,
		} {
			if err := m.CheckAddress(netip.MustParseAddr(addr), 443); (err == nil) != want {
				t.Errorf("%s %s: %v", host, addr, err)
			}
		}
		if err := m.CheckAddress(netip.MustParseAddr("10.20.3.4"), 6443); err == nil {
			t.Errorf("%s: a control plane is reached", host)
		}
	}
}
