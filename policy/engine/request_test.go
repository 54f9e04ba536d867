// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"
)

func connect(t *testing.T, e *Engine) Match {
	t.Helper()
	m := e.Connect(Connection{Binary: "/b", Host: "h.example", Port: 443})
	if !m.Allowed {
		t.Fatalf("denied: %s", m.Reason)
	}
	return m
}

type requestCase struct {
	request string // METHOD PATH?QUERY
	want    Decision
	reason  string
}

func checkRequests(t *testing.T, m Match, cases []requestCase) {
	t.Helper()
	for _, tt := range cases {
		method, target, _ := strings.Cut(tt.request, " ")
		path, query, _ := strings.Cut(target, "?")
		v := m.Request(Request{Method: method, Path: path, RawQuery: query})
		if v.Decision != tt.want || v.Reason != tt.reason || v.Policy != m.Policy {
			t.Errorf("%s: %v by %q (%s), want %v (%s)", tt.request, v.Decision, v.Policy, v.Reason, tt.want, tt.reason)
		}
	}
}

func TestRequest(t *testing.T) {
	m := connect(t, engine(t, `
r:
  endpoints:
    - host: h.example
      port: 443
      protocol: rest
      enforcement: enforce
      rules:
        - allow: { method: get, path: /repos/*/issues }
        - allow: { method: POST, path: /upload }
        - allow: { method: "*", path: /free/** }
        - allow: { method: GET, path: /search, query: { q: "a*", tag: { any: [x, "v.*"] } } }
      deny_rules:
        - { method: "*", path: /free/not/** }
        - { method: GET, path: "**", query: { token: "*" } }
`))
	checkRequests(t, m, []requestCase{
		{"GET /repos/o/issues", Allow, ""},
		{"HEAD /repos/o/issues", Allow, ""}, // like GET
		{"gEt /repos/o/issues?any=thing", Allow, ""},
		{"POST /repos/o/issues", Deny, "POST /repos/o/issues not permitted by policy"},
		{"GET /repos/o/r/issues", Deny, "GET /repos/o/r/issues not permitted by policy"},
		{"GET /Repos/o/issues", Deny, "GET /Repos/o/issues not permitted by policy"},
		{"POST /upload", Allow, ""},
		{"GET /upload", Deny, "GET /upload not permitted by policy"},
		{"HEAD /upload", Deny, "HEAD /upload not permitted by policy"},
		{"DELETE /free/a/b", Allow, ""},
		{"DELETE /free/not/b", Deny, "DELETE /free/not/b blocked by deny rule"},
		{"GET /search?q=abc&tag=x", Allow, ""},
		{"GET /search?q=a+b%20c&tag=v.1", Allow, ""},
		{"GET /search?q=a&tag=v.1.2", Deny, "GET /search not permitted by policy"}, // * stops at dots
		{"GET /search?q=a", Deny, "GET /search not permitted by policy"},           // missing
		{"GET /search?q=a&q=b&tag=x", Deny, "GET /search not permitted by policy"}, // all values
		{"GET /search?q=a&Tag=x", Deny, "GET /search not permitted by policy"},     // case-sensitive
		{"GET /search?q=a&tag=x&n=%zz", Deny, "GET /search blocked by deny rule"},  // unreadable
		{"GET /search?q=a&tag=x&token=t", Deny, "GET /search blocked by deny rule"},
		{"GET /free/x?a=1&token=", Deny, "GET /free/x blocked by deny rule"},
		{"GET /free/x?a=1;token=1", Deny, "GET /free/x blocked by deny rule"},
		{"GET /free/x?%74oken=1", Deny, "GET /free/x blocked by deny rule"},
		{"POST /free/x?token=1", Allow, ""},
		{"GE\x1bT /x", Deny, `"GE\x1bT" /x not permitted by policy`},
	})
}

func TestRequestPresets(t *testing.T) {
	allowed := map[string]string{
		"read-only":  "GET HEAD OPTIONS",
		"read-write": "GET HEAD OPTIONS POST PUT PATCH",
		"full":       "GET HEAD OPTIONS POST PUT PATCH DELETE PROPFIND",
	}
	for access, methods := range allowed {
		m := connect(t, engine(t, fmt.Sprintf(
			"r:\n  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, access: %s }]", access)))
		for method := range strings.FieldsSeq(allowed["full"]) {
			want := strings.Contains(methods, method)
			if got := m.Request(Request{Method: method, Path: "/a/b"}).Decision; (got == Allow) != want {
				t.Errorf("%s: %s is %v", access, method, got)
			}
		}
	}
}

// Audit is the default; it lets through what the rules deny, deny rules
// included.
func TestRequestAudit(t *testing.T) {
	m := connect(t, engine(t, `
r:
  endpoints:
    - host: h.example
      port: 443
      protocol: rest
      access: read-only
      deny_rules: [{ method: GET, path: /secret }]
`))
	checkRequests(t, m, []requestCase{
		{"GET /x", Allow, ""},
		{"POST /x", Audit, "POST /x not permitted by policy"},
		{"GET /secret", Audit, "GET /secret blocked by deny rule"},
	})
}

func TestRequestWithoutInspection(t *testing.T) {
	e := engine(t, "r:\n  endpoints: [{ host: h.example, port: 443 }]")
	if v := connect(t, e).Request(Request{Method: "DELETE", Path: "/x", RawQuery: ""}); v.Decision != Allow || v.Policy != "r" {
		t.Errorf("an L4 endpoint on its own grants everything: %+v", v)
	}
	denied := e.Connect(Connection{Binary: "/b", Host: "other.example", Port: 443})
	v := denied.Request(Request{Method: "GET", Path: "/", RawQuery: ""})
	if v.Decision != Deny || v.Policy != "" || v.Reason != "endpoint other.example:443 is not allowed by any policy" {
		t.Errorf("denied connection: %+v", v)
	}
	if v := (Match{}).Request(Request{Method: "GET", Path: "/", RawQuery: ""}); v.Decision != Deny {
		t.Errorf("zero match: %+v", v)
	}
}

// With several rules for one host, any grants, a deny rule of any wins, an
// L4-only endpoint grants no request, and a learned rule adds to the base.
func TestRequestAcrossRules(t *testing.T) {
	m := connect(t, engine(t, `
a_l4:
  endpoints: [{ host: h.example, port: 443 }]
b_read:
  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, access: read-only }]
# openshell.ai/learned
c_post:
  binaries: [{ path: /b }]
  endpoints:
    - host: h.example
      port: 443
      protocol: rest
      enforcement: audit
      rules: [{ allow: { method: POST, path: /x } }]
      deny_rules: [{ method: GET, path: /hidden }]
d_other_binary:
  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full }]
  binaries: [{ path: /other }]
`[1:]))
	checkRequests(t, m, []requestCase{
		{"GET /y", Allow, ""},
		{"POST /x", Allow, ""},
		{"GET /hidden", Deny, "GET /hidden blocked by deny rule"},
		{"DELETE /x", Deny, "DELETE /x not permitted by policy"}, // enforce wins over audit
	})
}

func TestRequestEndpointPaths(t *testing.T) {
	m := connect(t, engine(t, `
r:
  endpoints:
    - { host: h.example, port: 443, path: /v1/**, protocol: rest, enforcement: audit, access: read-only }
    - { host: h.example, port: 443, path: /v1/admin/**, protocol: rest, enforcement: enforce, rules: [{ allow: { method: PUT, path: /v1/admin/x } }] }
`))
	checkRequests(t, m, []requestCase{
		{"GET /v1/x", Allow, ""},
		{"POST /v1/x", Audit, "POST /v1/x not permitted by policy"},
		{"PUT /v1/admin/x", Allow, ""},
		{"GET /v1/admin/x", Allow, ""}, // the wider endpoint grants it
		{"POST /v1/admin/x", Deny, "POST /v1/admin/x not permitted by policy"},
		{"PUT /v1/x", Audit, "PUT /v1/x not permitted by policy"},
		{"GET /v2/x", Deny, "GET /v2/x did not match an L7 endpoint path"},
	})
}

func TestDecisionString(t *testing.T) {
	for d, want := range map[Decision]string{Deny: "deny", Allow: "allow", Audit: "audit", 7: "deny"} {
		if d.String() != want {
			t.Errorf("%d: %s", d, d)
		}
	}
}
