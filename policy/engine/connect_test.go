// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

const connectRules = `
api:
  endpoints:
    - { host: API.example.com, ports: [443, 8443] }
  binaries: [{ path: /usr/bin/curl }]
b_wild:
  endpoints:
    - { host: "*.example.com", port: 443 }
    - { host: "**.deep.example.com", port: 443, tls: skip }
  binaries: [{ path: /usr/bin/* }]
c_any:
  endpoints:
    - { host: open.example.org, port: 80 }
d_hostless:
  endpoints:
    - { port: 9100, allowed_ips: [10.1.0.0/16] }
  binaries: [{ path: /usr/bin/prom }]
e_literal:
  endpoints:
    - { host: "[2001:DB8::1]", port: 22 }
    - { host: 192.168.1.1, port: 22 }
  binaries: [{ path: /usr/bin/ssh }]
f_udp:
  endpoints:
    - { host: time.example.org, port: 123, protocol: udp }
  binaries: [{ path: /usr/sbin/chronyd }]
g_venv:
  endpoints:
    - { host: pypi.example.org, port: 443 }
  binaries: [{ path: "/home/*/.venv/**" }]
`

func TestConnect(t *testing.T) {
	e := engine(t, connectRules)
	const curl, ssh = "/usr/bin/curl", "/usr/bin/ssh"
	tests := []struct {
		name       string
		connection Connection
		policy     string // "" for denied
		reason     string
	}{
		{"exact", Connection{Binary: curl, Host: "api.example.com", Port: 443}, "api", ""},
		{"case and root dot", Connection{Binary: curl, Host: "Api.Example.COM.", Port: 443}, "api", ""},
		{"second port", Connection{Binary: curl, Host: "api.example.com", Port: 8443}, "api", ""},
		{"other port", Connection{Binary: curl, Host: "api.example.com", Port: 80}, "", "endpoint api.example.com:80 is not allowed by any policy"},
		{"wildcard", Connection{Binary: "/usr/bin/wget", Host: "x.example.com", Port: 443}, "b_wild", ""},
		{"wildcard is one label", Connection{Binary: curl, Host: "a.x.example.com", Port: 443}, "", "is not allowed by any policy"},
		{"wildcard is not the apex", Connection{Binary: curl, Host: "example.com", Port: 443}, "", "is not allowed by any policy"},
		{"deep wildcard", Connection{Binary: curl, Host: "a.b.deep.example.com", Port: 443}, "b_wild", ""},
		{"binary glob is one component", Connection{Binary: "/usr/bin/x/y", Host: "x.example.com", Port: 443}, "", "binary '/usr/bin/x/y' not allowed in policy 'b_wild'"},
		{"ancestor", Connection{Binary: "/bin/sh", Ancestors: []string{"/bin/make", curl}, Host: "api.example.com", Port: 8443}, "api", ""},
		{"ancestor by glob", Connection{Binary: "/bin/sh", Ancestors: []string{"/home/a/.venv/bin/pip"}, Host: "pypi.example.org", Port: 443}, "g_venv", ""},
		{"wrong binary", Connection{Binary: "/bin/nc", Ancestors: []string{"/bin/sh", "/bin/init"}, Host: "api.example.com", Port: 8443}, "", "binary '/bin/nc' not allowed in policy 'api' (ancestors: [/bin/sh -> /bin/init])"},
		{"binaries are case-sensitive", Connection{Binary: "/usr/bin/CURL", Host: "api.example.com", Port: 8443}, "", "not allowed in policy"},
		{"no binaries is any", Connection{Binary: "/anything", Host: "open.example.org", Port: 80}, "c_any", ""},
		{"hostless", Connection{Binary: "/usr/bin/prom", Host: "whatever.test", Port: 9100}, "d_hostless", ""},
		{"hostless by address", Connection{Binary: "/usr/bin/prom", Host: "10.1.2.3", Port: 9100}, "d_hostless", ""},
		{"IPv6 literal", Connection{Binary: ssh, Host: "2001:db8:0::1", Port: 22}, "e_literal", ""},
		{"bracketed IPv6 literal", Connection{Binary: ssh, Host: "[2001:db8::1]", Port: 22}, "e_literal", ""},
		{"mapped IPv4 literal", Connection{Binary: ssh, Host: "::ffff:192.168.1.1", Port: 22}, "e_literal", ""},
		{"other literal", Connection{Binary: ssh, Host: "192.168.1.2", Port: 22}, "", "endpoint 192.168.1.2:22 is not allowed by any policy"},
		{"udp", Connection{Binary: "/usr/sbin/chronyd", Host: "time.example.org", Port: 123, Protocol: "udp"}, "f_udp", ""},
		{"udp rule is not for tcp", Connection{Binary: "/usr/sbin/chronyd", Host: "time.example.org", Port: 123}, "", "is not allowed by any policy"},
		{"tcp rule is not for udp", Connection{Binary: curl, Host: "api.example.com", Port: 443, Protocol: "udp"}, "", "is not allowed by any policy"},
		{"unknown protocol", Connection{Binary: curl, Host: "api.example.com", Port: 443, Protocol: "sctp"}, "", "protocol sctp is not allowed"},
		{"a host cannot forge log lines", Connection{Binary: curl, Host: "a\nb\x1b[1m", Port: 1}, "", `endpoint "a\nb\x1b[1m":1 is not`},
		{"empty host", Connection{Binary: curl, Host: "", Port: 443}, "", "is not allowed by any policy"},
		{"a pattern is not a host", Connection{Binary: "/bin/wget", Host: "*.example.com", Port: 443}, "", "binary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := e.Connect(tt.connection)
			if m.Allowed != (tt.policy != "") || m.Policy != tt.policy {
				t.Errorf("allowed %v by %q (%s), want %q", m.Allowed, m.Policy, m.Reason, tt.policy)
			}
			if !strings.Contains(m.Reason, tt.reason) || tt.policy == "" && m.Reason == "" {
				t.Errorf("reason %q, want %q", m.Reason, tt.reason)
			}
		})
	}
}

// What is no path is matched by no rule that names programs, whatever its pattern.
func TestConnectOfAProgramWithoutAPath(t *testing.T) {
	p := policytest.Network(t, `named:
  endpoints: [{ host: h.example, port: 1 }]
  binaries: [{ path: "/**" }, { path: "**" }, { path: "**/x" }, { path: "/memfd:*" }]
any:
  endpoints: [{ host: any.example, port: 1 }]`)
	e, err := Compile(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, binary := range []string{"anonymous:x", "removed:/usr/bin/x", "other:/usr/bin/x", "anonymous:", ""} {
		for _, c := range []Connection{{Binary: binary}, {Binary: binary, Ancestors: []string{binary, binary}}} {
			c.Host, c.Port = "h.example", 1
			if m := e.Connect(c); m.Allowed || !strings.Contains(m.Reason, "not a file that the container shows") {
				t.Errorf("%q: %+v", binary, m)
			}
			if c.Host = "any.example"; !e.Connect(c).Allowed {
				t.Errorf("%q is not any program", binary)
			}
			c.Host, c.Ancestors = "h.example", []string{binary, "/usr/bin/x"}
			if !e.Connect(c).Allowed {
				t.Errorf("%q is not covered by its ancestor", binary)
			}
		}
	}
}

func TestConnectWithoutRules(t *testing.T) {
	m := mustCompile(t, policy.Default()).Connect(Connection{Binary: "/b", Host: "h.example", Port: 1})
	if m.Allowed || m.Reason != "network connections not allowed by policy" {
		t.Errorf("got %+v", m)
	}
}

func TestConnectByAlias(t *testing.T) {
	p := policytest.Network(t, "r:\n  endpoints: [{ host: h.example, port: 1 }]\n  binaries: [{ path: /usr/bin/python3 }, { path: \"/opt/*\" }]")
	e, err := Compile(p, Options{BinaryAliases: func(path string) []string {
		return map[string][]string{"/usr/bin/python3": {"a:/usr/bin/python3.11", "b:/usr/bin/python3.12"}, "/opt/*": {"a:/any"}}[path]
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		binary, alias string
		want          bool
	}{
		{"/usr/bin/python3", "", true},
		{"/usr/bin/python3", "c:/usr/bin/python3", true},
		{"/usr/bin/python3.11", "a:/usr/bin/python3.11", true},
		{"/usr/bin/python3.12", "b:/usr/bin/python3.12", true},
		{"/usr/bin/python3.11", "", false},
		{"/usr/bin/python3.11", "b:/usr/bin/python3.11", false},
		{"/any", "a:/any", false}, // what a glob means is no path
	} {
		for _, m := range []Match{
			e.Connect(Connection{Binary: tt.binary, Aliases: []string{tt.alias}, Host: "h.example", Port: 1}),
			e.Connect(Connection{Binary: "/child", Ancestors: []string{tt.binary}, Aliases: []string{"", tt.alias}, Host: "h.example", Port: 1}),
		} {
			if m.Allowed != tt.want {
				t.Errorf("%s, %q: allowed %v", tt.binary, tt.alias, m.Allowed)
			}
		}
	}
}

// Rules that are found by several paths, and more of them than are held in
// place, still count once each.
func TestConnectManyRules(t *testing.T) {
	var rules strings.Builder
	for i := range 9 {
		fmt.Fprintf(&rules, `
r%d:
  endpoints:
    - { host: h.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{ allow: { method: GET, path: /%d } }] }
    - { host: "*.example.com", port: 443 }
  binaries: [{ path: /b }, { path: "/*" }]`, i, i)
	}
	m := engine(t, rules.String()).Connect(Connection{Binary: "/b", Ancestors: []string{"/b", "/c"}, Host: "h.example.com", Port: 443})
	if m.Policy != "r0" || !m.Inspect || m.count != 18 {
		t.Errorf("policy %q, inspect %v, %d endpoints", m.Policy, m.Inspect, m.count)
	}
	if v := m.Request(Request{Method: "GET", Path: "/8"}); v.Decision != Allow {
		t.Errorf("the last rule does not count: %+v", v)
	}
	m = engine(t, rules.String()).Connect(Connection{Binary: "/x/y", Host: "h.example.com", Port: 443})
	if !strings.Contains(m.Reason, "'r2' (ancestors: []); nor in any other policy.") {
		t.Errorf("reason %q", m.Reason)
	}
}

func TestConnectTLS(t *testing.T) {
	e := engine(t, `
skip:
  endpoints:
    - { host: a.example.com, port: 443, tls: skip }
    - { host: b.example.com, port: 443, tls: skip }
# openshell.ai/learned
rest:
  binaries: [{ path: /b }]
  endpoints:
    - { host: b.example.com, port: 443, protocol: rest, access: full, allow_encoded_slash: true }
`)
	a := e.Connect(Connection{Binary: "/b", Host: "a.example.com", Port: 443})
	if !a.TLSSkip || a.Inspect || a.keepsEncodedSlash("/x") {
		t.Errorf("a: %+v", a)
	}
	// Splicing would take the request rules out of force.
	b := e.Connect(Connection{Binary: "/b", Host: "b.example.com", Port: 443})
	if b.TLSSkip || !b.Inspect || !b.keepsEncodedSlash("/x") {
		t.Errorf("b: %+v", b)
	}
}

func TestNameKnown(t *testing.T) {
	e := engine(t, connectRules+`
h_meta:
  endpoints: [{ host: metadata.google.internal, port: 80 }, { host: "*.google.internal", port: 80 }]
`)
	for host, want := range map[string]bool{
		"api.example.com": true, "API.EXAMPLE.COM.": true, "other.example.com": true, "a.b.deep.example.com": true,
		"example.com": false, "a.b.example.com": false, "whatever.test": false, "": false, "com": false,
		"metadata.google.internal": false, "x.google.internal": true, "evil-api.example.com.attacker.net": false,
	} {
		if got := e.NameKnown(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
