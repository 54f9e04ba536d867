// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"testing"

	"openshell.ai/openshell/policy"
)

// scaleEngine makes n rules of each kind that must not slow one decision: names
// with wildcards that share all but their first label, programs' globs on one
// endpoint, and rules on paths, operations, methods and tools of one endpoint.
func scaleEngine(tb testing.TB, n int) *Engine {
	tb.Helper()
	p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
	one := func(key, host, binary string) {
		p.Network[fmt.Sprintf("%s%d", key, len(p.Network))] = &policy.Rule{Endpoints: []policy.Endpoint{{Host: host, Port: 443}}, Binaries: []policy.Binary{{Path: binary}}}
	}
	var paths, operations, methods, tools []policy.L7Allow
	for i := range n {
		one("prefix", fmt.Sprintf("h%d-*.example.com", i), "/bin/a")
		one("suffix", fmt.Sprintf("*-h%d.example.com", i), "/bin/a")
		one("inner", fmt.Sprintf("*.s%d.*.example.org", i), "/bin/a")
		one("directory", "shared.example.net", fmt.Sprintf("/opt/app%d/**", i))
		one("name", "shared.example.net", fmt.Sprintf("**/tool%d", i))
		paths = append(paths, policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: fmt.Sprintf("/repos/*/x%d", i)}})
		operations = append(operations, policy.L7Allow{Allow: policy.L7Match{OperationType: "query", Fields: []string{fmt.Sprintf("f%d", i)}}},
			policy.L7Allow{Allow: policy.L7Match{OperationType: "mutation", OperationName: fmt.Sprintf("M%d*", i)}})
		methods = append(methods, policy.L7Allow{Allow: policy.L7Match{Method: fmt.Sprintf("m%d", i)}})
		tools = append(tools, policy.L7Allow{Allow: policy.L7Match{Method: "tools/call", Tool: policy.Matcher{Any: []string{fmt.Sprintf("t%d_*", i)}}}})
	}
	for protocol, rules := range map[string][]policy.L7Allow{"rest": paths, "graphql": operations, "json-rpc": methods, "mcp": tools} {
		p.Network[protocol] = &policy.Rule{Binaries: []policy.Binary{{Path: "/bin/a"}}, Endpoints: []policy.Endpoint{{
			Host: protocol + ".example.net", Port: 443, Protocol: protocol, Enforcement: "enforce", Rules: rules}}}
	}
	return mustCompile(tb, p)
}

var scaleConnections = map[string]Connection{
	"prefix":    {Binary: "/bin/a", Host: "h7-x.example.com", Port: 443},
	"suffix":    {Binary: "/bin/a", Host: "x-h7.example.com", Port: 443},
	"inner":     {Binary: "/bin/a", Host: "a.s7.b.example.org", Port: 443},
	"directory": {Binary: "/opt/app7/bin/x", Ancestors: []string{"/bin/bash", "/sbin/init"}, Host: "shared.example.net", Port: 443},
	"name":      {Binary: "/usr/lib/tool7", Host: "shared.example.net", Port: 443},
}

var scaleRequests = map[string]Request{
	"rest":     {Method: "GET", Path: "/repos/a/x7"},
	"graphql":  post("/", envelope("{ f7 }")),
	"json-rpc": post("/", rpc("m7", "")),
	"mcp":      post("/", tool("t7_x")),
}

func BenchmarkScale(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		e := scaleEngine(b, n)
		for name, c := range scaleConnections {
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if m := e.Connect(c); !m.Allowed {
						b.Fatal(m.Reason)
					}
				}
			})
		}
		for protocol, r := range scaleRequests {
			m := e.Connect(Connection{Binary: "/bin/a", Host: protocol + ".example.net", Port: 443})
			b.Run(fmt.Sprintf("%s/rules=%d", protocol, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if v := m.Request(r); v.Decision != Allow {
						b.Fatal(v.Reason)
					}
				}
			})
		}
	}
}

// The index finds what matches, and no more, without allocating.
func TestScale(t *testing.T) {
	e := scaleEngine(t, 300)
	for name, c := range scaleConnections {
		if n := allocs(10, func() {
			if m := e.Connect(c); !m.Allowed || m.count != 1 {
				t.Fatalf("%s: %d endpoints (%s)", name, m.count, m.Reason)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for _, c := range []Connection{
		{Binary: "/bin/a", Host: "h7x.example.com", Port: 443},
		{Binary: "/bin/a", Host: "h300-x.example.com", Port: 443},
		{Binary: "/bin/a", Host: "h7-x.y.example.com", Port: 443},
		{Binary: "/bin/a", Host: "s7.b.example.org", Port: 443},
		{Binary: "/bin/a", Host: "a.s7.example.org", Port: 443},
		{Binary: "/opt/app7", Host: "shared.example.net", Port: 443},
		{Binary: "/opt/app300/x", Host: "shared.example.net", Port: 443},
		{Binary: "/usr/lib/tool7x", Host: "shared.example.net", Port: 443},
	} {
		if m := e.Connect(c); m.Allowed {
			t.Errorf("%+v is allowed by %s", c, m.Policy)
		}
	}
	for protocol, r := range scaleRequests {
		if v := e.Connect(Connection{Binary: "/bin/a", Host: protocol + ".example.net", Port: 443}).Request(r); v.Decision != Allow {
			t.Errorf("%s: %+v", protocol, v)
		}
	}
}
