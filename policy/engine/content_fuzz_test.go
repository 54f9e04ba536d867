// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

// fuzzed checks what holds of every verdict: nothing malformed is let through,
// and allowing what is missing, and nothing else, is enough.
func fuzzed(t *testing.T, p *policy.Policy, decide func(Match) Verdict) Verdict {
	t.Helper()
	m := connect(t, mustCompile(t, p))
	v := decide(m)
	switch {
	case v.Malformed && (v.Decision != Deny || v.Missing != nil):
		t.Errorf("malformed: %+v", v)
	case (v.Reason == "") != (v.Decision == Allow):
		t.Errorf("%v with reason %q", v.Decision, v.Reason)
	case len(v.Reason) > 2048 || len(v.Missing) > maxMissing:
		t.Errorf("unbounded: %d bytes, %d missing", len(v.Reason), len(v.Missing))
	}
	if len(v.Missing) == 0 || len(v.Missing) == maxMissing {
		return v
	}
	wider := p.Clone()
	ep := p.Clone().Network["r"].Endpoints[0]
	ep.Access, ep.DenyRules, ep.Rules = "", nil, nil
	for _, missing := range v.Missing {
		ep.Rules = append(ep.Rules, policy.L7Allow{Allow: missing})
	}
	wider.Network["more"] = &policy.Rule{Endpoints: []policy.Endpoint{ep}, Binaries: []policy.Binary{{Path: "/b"}}, Learned: true}
	if again := decide(connect(t, mustCompile(t, wider))); again.Decision != Allow {
		t.Errorf("missing %+v is not enough: %+v", v.Missing, again)
	}
	return v
}

func FuzzGraphQLBody(f *testing.F) {
	for _, body := range []string{
		envelope("{ viewer { id } }"), envelope("query Q($a: [Int!] = [1]) @d { viewer(x: $a) { ...F } } fragment F on U { id }"),
		"[" + envelope("mutation M { a: createIssue { id } }") + `,{"id":"x"}]`,
		`{"query":"{ viewer }","operationName":"A","extensions":{"persistedQuery":{"version":1,"sha256Hash":"00"}}}`,
		`{"query":"{ a }","\u0071uery":"{ viewer }"}`, "[", "{}",
	} {
		f.Add(body, "query=%7Bviewer%7D&operationName=")
	}
	p := policytest.Network(f, `
r:
  endpoints:
    - host: h.example
      port: 443
      protocol: graphql
      enforcement: enforce
      rules: [{ allow: { operation_type: query, fields: [viewer, "r*"] } }]
      deny_rules: [{ operation_type: mutation, fields: [wipe] }]
`)
	f.Fuzz(func(t *testing.T, body, query string) {
		v := fuzzed(t, p, func(m Match) Verdict { return m.Request(post("/graphql", body)) })
		if v.Decision == Allow && !json.Valid([]byte(body)) {
			t.Errorf("allowed what is not JSON")
		}
		// Whatever another reader of JSON takes for the query is what was decided.
		var other struct{ Query string }
		if json.Unmarshal([]byte(body), &other) == nil && v.Decision == Allow {
			if o, err := documentOperation(other.Query, ""); err == nil && (o.kind != "query" || slices.Contains(o.fields, "wipe")) {
				t.Errorf("allowed %+v", o)
			}
		}
		if _, err := url.ParseQuery(query); err == nil || !strings.Contains(query, ";") {
			fuzzed(t, p, func(m Match) Verdict {
				return m.Request(Request{Method: "GET", Path: "/graphql", RawQuery: query, Body: []byte{}})
			})
		}
	})
}

func FuzzJSONRPCBody(f *testing.F) {
	for _, body := range []string{
		rpc("allowed", ""), tool("search"), "[" + tool("delete") + "," + rpc("x", "[1]") + "]",
		`{"jsonrpc":"2.0","id":1,"result":{}}`, `{"jsonrpc":"2.0","method":"allowed","Method":"x"}`, "[]", "{",
	} {
		f.Add(body)
	}
	plain := policytest.Network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: json-rpc, enforcement: enforce, rules: [{ allow: { method: allowed } }], deny_rules: [{ method: admin }] }]
`)
	mcp := policytest.Network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: mcp, enforcement: enforce, rules: [{ allow: { method: tools/call, tool: search } }], deny_rules: [{ method: admin }] }]
`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, p := range []*policy.Policy{plain, mcp} {
			v := fuzzed(t, p, func(m Match) Verdict { return m.Request(post("/", body)) })
			var other struct{ Method string }
			if json.Unmarshal([]byte(body), &other) == nil && v.Decision == Allow && other.Method != "allowed" && other.Method != "tools/call" && other.Method != "" {
				t.Errorf("allowed %q", other.Method)
			}
		}
	})
}

func FuzzWebSocketText(f *testing.F) {
	for _, message := range []string{
		`{"type":"connection_init"}`, `{"id":"1","type":"subscribe","payload":` + envelope("subscription { messageAdded }") + "}",
		`{"id":"1","type":"start","payload":` + envelope("mutation { wipe }") + "}", `{"type":"ping","type":"subscribe"}`, "hello", "\xff",
	} {
		f.Add(message)
	}
	graphql := policytest.Network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: websocket, enforcement: enforce, rules: [{ allow: { operation_type: subscription, fields: [messageAdded] } }] }]
`)
	text := policytest.Network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: websocket, enforcement: enforce, access: read-only }]
`)
	f.Fuzz(func(t *testing.T, message string) {
		for _, p := range []*policy.Policy{graphql, text} {
			fuzzed(t, p, func(m Match) Verdict { return m.Text(upgrade("/x", ""), []byte(message)) })
		}
	})
}
