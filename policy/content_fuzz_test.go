// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// fuzzed checks what holds of every verdict: nothing malformed is let through,
// and allowing what is missing, and nothing else, is enough.
func fuzzed(t *testing.T, p *Policy, decide func(Match) Verdict) Verdict {
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
	ep := wider.Network["r"].Endpoints[0].clone()
	ep.Access, ep.DenyRules, ep.Rules = "", nil, nil
	for _, missing := range v.Missing {
		ep.Rules = append(ep.Rules, L7Allow{missing})
	}
	wider.Network["more"] = &Rule{Endpoints: []Endpoint{ep}, Binaries: []Binary{{"/b"}}, Learned: true}
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
	p := network(f, `
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
	plain := network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: json-rpc, enforcement: enforce, rules: [{ allow: { method: allowed } }], deny_rules: [{ method: admin }] }]
`)
	mcp := network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: mcp, enforcement: enforce, rules: [{ allow: { method: tools/call, tool: search } }], deny_rules: [{ method: admin }] }]
`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, p := range []*Policy{plain, mcp} {
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
	graphql := network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: websocket, enforcement: enforce, rules: [{ allow: { operation_type: subscription, fields: [messageAdded] } }] }]
`)
	text := network(f, `
r:
  endpoints: [{ host: h.example, port: 443, protocol: websocket, enforcement: enforce, access: read-only }]
`)
	f.Fuzz(func(t *testing.T, message string) {
		for _, p := range []*Policy{graphql, text} {
			fuzzed(t, p, func(m Match) Verdict { return m.Text(upgrade("/x", ""), []byte(message)) })
		}
	})
}

func FuzzAffix(f *testing.F) {
	f.Add("/repos/**/x*y", "/repos/a/xzy", byte('/'))
	f.Add("**/b", "b", byte('/'))
	f.Add("**.a.*", "x.a.b", byte('.'))
	f.Fuzz(func(t *testing.T, pattern, s string, separator byte) {
		if separator != '.' {
			separator = '/'
		}
		g, err := compileGlob(pattern, separator)
		if err != nil {
			return
		}
		var x affixIndex[glob]
		x.add(g.affix, g)
		if got, want := x.any(s, func(g glob) bool { return g.match(s) }), g.expr != nil && g.expr.MatchString(s) || g.expr == nil && s == pattern; got != want {
			t.Errorf("%q on %q: found %v, matches %v", pattern, s, got, want)
		}
	})
}
