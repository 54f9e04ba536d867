// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// lacking is a denial of a declared endpoint's rules.
func lacking(protocol, path string, missing ...policy.L7Match) Denial {
	return with(request1("POST", "/api/x"), func(d *Denial) {
		d.Layer, d.L7, d.EndpointPath, d.Missing = "l7", protocol, path, missing
	})
}

func TestDeclaredEndpoints(t *testing.T) {
	p := proposeOne(t,
		request1("GET", "/a"),
		lacking("rest", "/api/**", policy.L7Match{Method: "POST", Path: "/api/x/550e8400-e29b-41d4-a716-446655440000"}),
		lacking("rest", "/api/**", policy.L7Match{Method: "DELETE", Path: "/api/x"}, policy.L7Match{Method: "GET", Path: "/api/x"}),
		raw(), // elsewhere the policy declares nothing, which no rule can bring back here
	)
	allow := func(method, path string) policy.L7Allow {
		return policy.L7Allow{Allow: policy.L7Match{Method: method, Path: path}}
	}
	want := []policy.Endpoint{
		{Host: "api.github.com", Ports: []uint16{443}, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{allow("GET", "/a")}},
		{Host: "api.github.com", Ports: []uint16{443}, Protocol: "rest", Enforcement: "enforce", Path: "/api/**",
			Rules: []policy.L7Allow{allow("DELETE", "/api/x"), allow("GET", "/api/x"), allow("POST", "/api/x/*")}},
	}
	if !reflect.DeepEqual(p.Rule.Endpoints, want) {
		t.Errorf("endpoints %+v\nwant %+v", p.Rule.Endpoints, want)
	}
}

func TestNoRuleHelps(t *testing.T) {
	for name, d := range map[string]Denial{
		"a deny rule":                 lacking("rest", "/api/**"),
		"a method like a wildcard":    lacking("rest", "", policy.L7Match{Method: "*", Path: "/a"}),
		"one of several is like that": lacking("rest", "", policy.L7Match{Method: "GET", Path: "/a"}, policy.L7Match{Method: "*", Path: "/b"}),
	} {
		if got := proposeAll(d); len(got) != 0 {
			t.Errorf("%s: proposed %+v", name, got[0].Rule)
		}
	}
}

// What is stored brings all back that was learned.
func TestEndpointsAreRestored(t *testing.T) {
	store, runs := state.Open(t.TempDir()), 0
	see := func(denials ...Denial) Proposal {
		runs++
		learnFrom(t, store, permissiveRun(fmt.Sprintf("r%d", runs)), denials...)
		return one(t, store)
	}
	see(lacking("rest", "/api/**", policy.L7Match{Method: "GET", Path: "/api/a"}))
	see(request1("GET", "/b"))
	p := see(lacking("rest", "/v2/**", policy.L7Match{Method: "GET", Path: "/v2/c"}))
	if n := len(Grants(p.Rule)); n != 3 || len(p.Rule.Endpoints) != 3 {
		t.Errorf("rule %+v", p.Rule)
	}
	if again := see(lacking("rest", "/api/**", policy.L7Match{Method: "GET", Path: "/api/a"})); again.Digest != p.Digest {
		t.Errorf("rule %+v", again.Rule)
	}
}

const declaredPolicy = `
version: 1
network_policies:
  api:
    endpoints:
      - {host: api.github.com, port: 443, path: /v3/**, protocol: rest, enforcement: enforce, access: read-only}
      - host: api.github.com
        port: 443
        path: /graphql
        protocol: graphql
        enforcement: enforce
        rules: [{allow: {operation_type: query, fields: [viewer]}}]
      - host: api.github.com
        port: 443
        path: /rpc
        protocol: json-rpc
        enforcement: enforce
        rules: [{allow: {method: status}}]
        deny_rules: [{method: wipe}]
      - host: api.github.com
        port: 443
        path: /mcp
        protocol: mcp
        enforcement: enforce
        mcp: {strict_tool_names: false}
        rules: [{allow: {method: initialize}}]
      - host: api.github.com
        port: 443
        path: /ws/**
        protocol: websocket
        enforcement: enforce
        rules: [{allow: {method: GET, path: /ws/other}}]
    binaries: [{path: /usr/bin/curl}]
`

// sent is a request, or a message on the WebSocket that it opened.
type sent struct {
	engine.Request
	text string
}

func (s sent) decide(m engine.Match) engine.Verdict {
	if s.text != "" {
		return m.Text(s.Request, []byte(s.text))
	}
	return m.Request(s.Request)
}

func post(path, body string) sent {
	return sent{Request: engine.Request{Method: "POST", Path: path, Body: []byte(body), ContentType: "application/json"}}
}

func get(path string) sent {
	return sent{Request: engine.Request{Method: "GET", Path: path, Upgrade: strings.HasPrefix(path, "/ws")}}
}

func matchOf(t *testing.T, p *policy.Policy) engine.Match {
	t.Helper()
	compiled, err := engine.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return compiled.Connect(engine.Connection{Binary: "/usr/bin/curl", Host: "api.github.com", Port: 443})
}

// What a permissive run let through is allowed once its proposal is approved, and nothing else, for
// every protocol that an endpoint can declare.
func TestApprovedIsAllowed(t *testing.T) {
	base, _, err := policy.Parse([]byte(declaredPolicy))
	if err != nil {
		t.Fatal(err)
	}
	before := matchOf(t, base)
	text := func(path, message string) sent {
		s := get(path)
		s.text = message
		return s
	}
	for name, c := range map[string]struct{ seen, never []sent }{
		"rest": {[]sent{{Request: engine.Request{Method: "PUT", Path: "/v3/a/*"}}, {Request: engine.Request{Method: "PUT", Path: "/v3/u/7"}}},
			[]sent{{Request: engine.Request{Method: "PUT", Path: "/v3/a/b"}}, {Request: engine.Request{Method: "DELETE", Path: "/v3/a/*"}}}},
		"elsewhere": {[]sent{get("/status"), post("/upload", "x")}, []sent{get("/statuses"), post("/v3/upload", "x")}},
		"graphql": {[]sent{post("/graphql", `{"query":"query Q { viewer repository(name: \"x\") { id } }"}`), post("/graphql", `[{"query":"mutation A { star }"},{"query":"{ rateLimit }"}]`)},
			[]sent{post("/graphql", `{"query":"mutation B { star }"}`), post("/graphql", `{"query":"{ secrets }"}`)}},
		"json-rpc": {[]sent{post("/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_call"}`), post("/rpc", `[{"jsonrpc":"2.0","id":1,"method":"a.b"},{"jsonrpc":"2.0","id":2,"method":"status"}]`)},
			[]sent{post("/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_send"}`), post("/rpc", `{"jsonrpc":"2.0","id":1,"method":"wipe"}`)}},
		"mcp": {[]sent{post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`), post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`),
			post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read file"}}`)},
			[]sent{post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"shell"}}`), post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"resources/read"}`)}},
		"websocket": {[]sent{get("/ws/chat"), text("/ws/chat", "hello")}, []sent{get("/ws/admin"), text("/ws/other", "hello")}},
	} {
		t.Run(name, func(t *testing.T) {
			var denials []Denial
			for _, s := range c.seen {
				v := s.decide(before)
				if v.Decision != engine.Deny || v.Malformed {
					t.Fatalf("%+v: %+v", s, v)
				}
				d := with(request1(s.Method, s.Path), func(d *Denial) {
					d.Layer, d.L7, d.EndpointPath, d.Missing, d.Reason = "l7", v.Protocol, v.Path, v.Missing, v.Reason
				})
				if s.text != "" {
					d.Kind = KindMessage
				}
				denials = append(denials, d)
			}
			store := state.Open(t.TempDir())
			for i, d := range denials {
				learnFrom(t, store, permissiveRun(fmt.Sprintf("r%d", i)), d)
			}
			approve(t, store, one(t, store).ID)
			rules, err := LearnedPolicy(store, "agent")
			if err != nil {
				t.Fatal(err)
			}
			after := matchOf(t, policy.Merge(base, rules))
			for _, s := range c.seen {
				if v := s.decide(after); v.Decision != engine.Allow {
					t.Errorf("seen %+v is not allowed: %+v", s, v)
				}
			}
			for _, s := range c.never {
				if v := s.decide(after); v.Decision != engine.Deny {
					t.Errorf("never seen, but allowed: %+v: %+v", s, v)
				}
			}
			if again := proposeAll(denials...); len(again) != 1 || again[0].Digest != one(t, store).Digest {
				t.Errorf("in one run: %+v", again)
			}
		})
	}
}

// What a rule could only name with a wildcard is not proposed.
func TestCallsAreLiteral(t *testing.T) {
	for _, m := range []policy.L7Match{
		{Method: "*"}, {Method: "tools/*"}, {Method: "tools/call", Tool: policy.Matcher{Any: []string{"*"}}}, {Method: "a\nb"}, {Method: "\xff"},
		{OperationType: "query", OperationName: "*", Fields: []string{"a"}}, {OperationType: "query", Fields: []string{"a*"}},
		{OperationType: "query", OperationName: strings.Repeat("x", maxLiteral+1)}, {},
	} {
		if got := proposeAll(lacking("mcp", "/mcp", m)); len(got) != 0 {
			t.Errorf("%+v: proposed %+v", m, got[0].Rule)
		}
	}
}

func TestCallsAreBounded(t *testing.T) {
	var denials []Denial
	for i := range 2 * maxCalls {
		denials = append(denials, lacking("json-rpc", "/rpc", policy.L7Match{Method: fmt.Sprintf("m%d", i)}))
	}
	p := proposeOne(t, denials...)
	slices.Reverse(denials)
	if again := proposeOne(t, denials...); again.Digest != p.Digest || len(Grants(p.Rule)) != maxCalls {
		t.Errorf("%d grants", len(Grants(p.Rule)))
	}
	if !slices.Contains(p.SecurityNotes, noteTruncated) {
		t.Errorf("notes %q", p.SecurityNotes)
	}
}

func TestGrants(t *testing.T) {
	for want, m := range map[string]policy.L7Match{
		"GET /repos/*":       {Method: "GET", Path: "/repos/*"},
		"query Q { a b }":    {OperationType: "query", OperationName: "Q", Fields: []string{"a", "b"}},
		"mutation { a }":     {OperationType: "mutation", Fields: []string{"a"}},
		"tools/call search":  {Method: "tools/call", Tool: policy.Matcher{Any: []string{"search"}}},
		"eth_call":           {Method: "eth_call"},
		"WEBSOCKET_TEXT /ws": {Method: "WEBSOCKET_TEXT", Path: "/ws"},
	} {
		if got := grant(&m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
