// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

func TestHostAliases(t *testing.T) {
	base := policytest.Network(t, `
docker:
  endpoints: [{ host: host.docker.internal, ports: [443, 6443] }]
podman:
  endpoints: [{ host: Host.Containers.Internal, port: 443, allowed_ips: [10.20.0.0/16] }]
wild:
  endpoints: [{ host: "*.openshell.internal", port: 443 }]
other:
  endpoints: [{ host: gateway.corp.example, port: 443 }]
`)
	learned := policytest.Network(t, `
l_alias:
  endpoints: [{ host: host.openshell.internal, port: 8443 }, { host: host.docker.internal, port: 8080 }]
  binaries: [{ path: /b }]
`)
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	e, err := Compile(policy.Merge(base, learned), Options{HostAliases: map[string][]netip.Addr{
		"host.docker.internal":     addrs("169.254.1.2", "fe80::1%eth0", "127.0.0.1", "169.254.169.254", "169.254.170.2", "0.0.0.0", "240.0.0.1"),
		"host.containers.internal": addrs("169.254.1.2"),
		"host.openshell.internal":  addrs("169.254.1.2"),
		"gateway.corp.example":     addrs("169.254.1.2"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host   string
		port   uint16
		addr   string
		reason string // "" passes
	}{
		{"host.docker.internal", 443, "169.254.1.2", ""},
		{"host.docker.internal", 443, "::ffff:169.254.1.2", ""},
		{"host.docker.internal", 443, "fe80::1", ""},
		{"host.docker.internal", 443, "172.17.0.1", ""}, // as for any exact name
		{"host.docker.internal", 443, "169.254.1.3", "trusted-gateway check failed: 169.254.1.3"},
		{"host.docker.internal", 443, "127.0.0.1", "trusted-gateway check failed: 127.0.0.1"},
		{"host.docker.internal", 443, "169.254.169.254", "trusted-gateway check failed"},
		{"host.docker.internal", 443, "169.254.170.2", "trusted-gateway check failed"},
		{"host.docker.internal", 443, "0.0.0.0", "trusted-gateway check failed"},
		{"host.docker.internal", 443, "240.0.0.1", "trusted-gateway check failed"},
		{"host.docker.internal", 6443, "169.254.1.2", "port 6443 is a blocked control-plane port"},
		{"host.containers.internal", 443, "169.254.1.2", ""},
		{"host.containers.internal", 443, "10.20.0.1", ""},
		{"host.containers.internal", 443, "10.21.0.1", "allowed_ips check failed"},
		{"host.openshell.internal", 443, "169.254.1.2", "always blocked (link-local)"},  // a wildcard names no alias
		{"host.openshell.internal", 8443, "169.254.1.2", "always blocked (link-local)"}, // nor does a learned rule
		{"host.docker.internal", 8080, "169.254.1.2", "always blocked (link-local)"},
		{"gateway.corp.example", 443, "169.254.1.2", "always blocked (link-local)"},
		{"host.docker.internal", 1, "169.254.1.2", "always blocked (link-local)"}, // permissive
	} {
		m := e.Connect(Connection{Binary: "/b", Host: tt.host, Port: tt.port})
		err := m.CheckAddress(netip.MustParseAddr(tt.addr), tt.port)
		if tt.reason == "" && err != nil || tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)) {
			t.Errorf("%s:%d at %s: %v, want %q", tt.host, tt.port, tt.addr, err, tt.reason)
		}
	}
}
