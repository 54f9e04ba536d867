// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/httptarget"
)

// benchEngine makes a policy of n rules of each kind: exact hosts, wildcards of
// their own and with one suffix, binaries and globs of binaries for one host, and
// as many learned paths and globs of paths of one endpoint.
func benchEngine(tb testing.TB, n int) *Engine {
	tb.Helper()
	p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
	paths := make([]policy.L7Allow, 0, n)
	for i := range n {
		p.Network[fmt.Sprintf("exact%d", i)] = &policy.Rule{
			Endpoints: []policy.Endpoint{{Host: fmt.Sprintf("h%d.example.com", i), Port: 443}},
			Binaries:  []policy.Binary{{Path: "/usr/bin/curl"}},
		}
		p.Network[fmt.Sprintf("wild%d", i)] = &policy.Rule{
			Endpoints: []policy.Endpoint{{Host: fmt.Sprintf("*.w%d.example.com", i), Port: 443}},
			Binaries:  []policy.Binary{{Path: "/usr/bin/curl"}},
		}
		p.Network[fmt.Sprintf("binary%d", i)] = &policy.Rule{
			Endpoints: []policy.Endpoint{{Host: "shared.example.com", Port: 443}},
			Binaries:  []policy.Binary{{Path: fmt.Sprintf("/opt/b%d", i)}},
		}
		p.Network[fmt.Sprintf("suffix%d", i)] = &policy.Rule{
			Endpoints: []policy.Endpoint{{Host: fmt.Sprintf("s%d-*.suffix.example.com", i), Port: 443}, {Host: fmt.Sprintf("*-s%d.suffix.example.com", i), Port: 443}},
			Binaries:  []policy.Binary{{Path: "/usr/bin/curl"}},
		}
		p.Network[fmt.Sprintf("glob%d", i)] = &policy.Rule{
			Endpoints: []policy.Endpoint{{Host: "globs.example.com", Port: 443}},
			Binaries:  []policy.Binary{{Path: fmt.Sprintf("/opt/g%d/**", i)}},
		}
		paths = append(paths, policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: fmt.Sprintf("/learned/%d", i)}}, policy.L7Allow{Allow: policy.L7Match{Method: "POST", Path: fmt.Sprintf("/learned/*/%d", i)}})
		paths = append(paths, policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: fmt.Sprintf("/p%d/*/x", i)}})
	}
	p.Network["requests"] = &policy.Rule{
		Endpoints: []policy.Endpoint{{Host: "rest.example.com", Port: 443, Protocol: "rest", Enforcement: "enforce", Rules: paths}},
		Binaries:  []policy.Binary{{Path: "/usr/bin/curl"}},
	}
	return mustCompile(tb, p)
}

var benchConnections = map[string]Connection{
	"exact":    {Binary: "/usr/bin/curl", Ancestors: []string{"/bin/bash", "/sbin/init"}, Host: "h7.example.com", Port: 443},
	"wildcard": {Binary: "/usr/bin/curl", Host: "api.w7.example.com", Port: 443},
	"suffix":   {Binary: "/usr/bin/curl", Host: "s7-a.suffix.example.com", Port: 443},
	"ending":   {Binary: "/usr/bin/curl", Host: "a-s7.suffix.example.com", Port: 443},
	"glob":     {Binary: "/opt/g7/bin/x", Host: "globs.example.com", Port: 443},
	"binary":   {Binary: "/opt/b7", Host: "shared.example.com", Port: 443},
	"ancestor": {Binary: "/bin/sh", Ancestors: []string{"/opt/b7"}, Host: "shared.example.com", Port: 443},
}

var benchRequests = map[string]Request{
	"glob":   {Method: "GET", Path: "/p7/abc/x", RawQuery: "a=b"},
	"exact":  {Method: "GET", Path: "/learned/7"},
	"suffix": {Method: "POST", Path: "/learned/abc/7"},
}

func BenchmarkConnect(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		e := benchEngine(b, n)
		for name, c := range benchConnections {
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if m := e.Connect(c); !m.Allowed {
						b.Fatal(m.Reason)
					}
				}
			})
		}
	}
}

// What is refused for its program names the rules of other programs.
func BenchmarkConnectDenied(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		e := benchEngine(b, n)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if m := e.Connect(Connection{Binary: "/bin/other", Host: "shared.example.com", Port: 443}); m.Allowed {
					b.Fatal(m.Policy)
				}
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		m := benchEngine(b, n).Connect(Connection{Binary: "/usr/bin/curl", Host: "rest.example.com", Port: 443})
		for name, r := range benchRequests {
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if v := m.Request(r); v.Decision != Allow {
						b.Fatal(v.Reason)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("denied/rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v := m.Request(Request{Method: "GET", Path: "/learned/x"}); v.Decision != Deny {
					b.Fatal(v)
				}
			}
		})
	}
}

func BenchmarkCheckAddress(b *testing.B) {
	m := benchEngine(b, 10).Connect(benchConnections["exact"])
	a := netip.MustParseAddr("140.82.112.6")
	b.ReportAllocs()
	for b.Loop() {
		if err := m.CheckAddress(a, 443); err != nil {
			b.Fatal(err)
		}
	}
}

// The benchmarks' claims that must not be lost unseen.
func TestDecisionsDoNotAllocate(t *testing.T) {
	e := benchEngine(t, 100)
	for name, c := range benchConnections {
		if n := allocs(100, func() {
			if m := e.Connect(c); !m.Allowed {
				t.Fatal(m.Reason)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	m := e.Connect(Connection{Binary: "/usr/bin/curl", Host: "rest.example.com", Port: 443})
	for name, r := range benchRequests {
		if n := allocs(100, func() {
			if v := m.Request(r); v.Decision != Allow {
				t.Fatal(v.Reason)
			}
		}); n != 0 {
			t.Errorf("request %s: %v allocations", name, n)
		}
	}
	known := 0
	if n := allocs(100, func() {
		if e.NameKnown("api.w7.example.com") {
			known++
		}
	}); n != 0 || known == 0 {
		t.Errorf("name: %v allocations", n)
	}
	for _, target := range []string{"/", "/repos/owner/name/issues?state=open", "/.well-known/@a:b/..."} {
		if n := allocs(100, func() {
			if _, err := httptarget.Parse("GET", target); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("target %s: %v allocations", target, n)
		}
	}
}

// The keys that a refusal names cost the same however many there are.
func TestDeniedNamesFewRules(t *testing.T) {
	denied := func(rules int) float64 {
		e := benchEngine(t, rules)
		return allocs(20, func() {
			if m := e.Connect(Connection{Binary: "/bin/other", Host: "shared.example.com", Port: 443}); m.Allowed {
				t.Fatal(m.Policy)
			}
		})
	}
	if few, many := denied(10), denied(500); many > few+3 { // other goroutines allocate too
		t.Errorf("%v allocations with 10 rules, %v with 500", few, many)
	}
}

// allocs is testing.AllocsPerRun at its best of several times: regular expressions
// keep their machines in a sync.Pool, which the race detector, and a collection
// of garbage, empties now and then.
func allocs(runs int, f func()) float64 {
	fewest := testing.AllocsPerRun(runs, f)
	for range 9 {
		fewest = min(fewest, testing.AllocsPerRun(runs, f))
	}
	return fewest
}
