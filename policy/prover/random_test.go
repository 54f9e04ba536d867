// SPDX-License-Identifier: Apache-2.0

package prover_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/internal/policytest"
	"openshell.ai/openshell/policy/prover"
)

func request(d policytest.Dice) decision.Action {
	binary := func() string { return d.One("/bin/a", "/bin/b", "/bin/c", "/opt/y", "/opt/x/a", "/opt/x/c/d") }
	r := decision.Action{
		Binary: binary(),
		Host:   d.One("a.example.com", "a.example.com", "A.example.com.", "b-x.example.com", "a.b.example.com", "c.example.com", "10.0.0.1", "1.1.1.1", "10.0.0.2"),
		Port:   443,
	}
	if d.Chance(30) {
		r.Ancestors = []string{binary()}
	}
	if d.Chance(10) {
		r.Port = 6443
	}
	if _, literal := wildcard.HostAddr(r.Host); !literal && d.Chance(60) {
		r.ResolvedIPs = []string{d.One("1.1.1.1", "1.1.2.1", "10.0.0.1", "10.0.0.9", "10.9.9.9", "127.0.0.1", "2606:4700::1")}
	}
	if d.Chance(85) {
		r.HTTP = &decision.RequestLine{
			Method: d.One("GET", "HEAD", "POST", "PUT", "DELETE"),
			Target: d.One("/x/a", "/x/b", "/x/ab", "/y/a", "/", "/x", "/x/a/a", "/x/%2Fa", "/z/a") +
				d.One("", "", "?q=1", "?q=2", "?q=12", "?q=1&q=2", "?r=1", "?q=1&r=1", "?q=%zz", "?q=1.1"),
		}
	}
	if r.HTTP != nil && d.Content && d.Chance(75) {
		carry(d, &r)
	}
	return r
}

// carry gives a request something that it says.
func carry(d policytest.Dice, r *decision.Action) {
	field := func() string { return d.One("a", "b", "ab", "c") }
	operation := fmt.Sprintf(`{"query":"%s %s { %s %s }"}`, d.One("query", "mutation"), d.One("", "N", "N1", "M"), field(), d.One("", field()))
	call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q}`, d.One("a", "b", "ping", "tools/list", "resources/read"))
	if d.Chance(50) {
		call = fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q}}`, d.One("t", "t1", "u"))
	}
	r.HTTP.Method = "POST"
	switch d.IntN(7) {
	case 0, 1:
		r.GraphQL = json.RawMessage(operation)
	case 2:
		r.GraphQL = json.RawMessage(`[` + operation + `,{"query":"{ ` + field() + ` }"}]`)
	case 3:
		r.GraphQL = json.RawMessage(`{"id":"abc"}`)
	case 4:
		r.JSONRPC = json.RawMessage(call)
	case 5:
		r.JSONRPC = json.RawMessage(`[` + call + `,{"jsonrpc":"2.0","id":2,"method":"a"}]`)
	case 6:
		r.HTTP.Method = "GET"
		text := d.One(call, `{"type":"subscribe","id":"1","payload":`+operation+`}`, "hello")
		r.WebSocketText = &text
	}
}

// checkWithin compares two random policies, and asks both the same if the one is
// within the other. It returns whether it is, and how much was allowed.
func checkWithin(t *testing.T, seed uint64) (bool, int) {
	t.Helper()
	d := policytest.NewDice(seed)
	p := d.Policy()
	maximum := d.Policy()
	if d.Chance(80) {
		maximum = d.Wider(p)
	}
	policytest.Settle(p)
	policytest.Settle(maximum)
	if p.Validate() != nil || maximum.Validate() != nil {
		t.Fatalf("seed %d: not valid: %v, %v", seed, p.Validate(), maximum.Validate())
	}
	// Of different protocols for the same requests, not all can be shown.
	if err := prover.Within(p, p); err != nil && !d.Content {
		t.Errorf("seed %d: not within itself: %v\n%s", seed, err, policytest.Text(t, p))
	}
	if prover.Within(p, maximum) != nil {
		return false, 0
	}
	own, most := evaluator(t, p), evaluator(t, maximum)
	allowed := 0
	for range 300 {
		r := request(d)
		a, err := own(r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Decision == engine.Deny.String() {
			continue
		}
		allowed++
		if b, _ := most(r); b.Decision == engine.Deny.String() {
			t.Fatalf("seed %d: %+v %+v is %+v, but the maximum says %+v\n%s\nmaximum:\n%s", seed, r, r.HTTP, a, b, policytest.Text(t, p), policytest.Text(t, maximum))
		}
	}
	return true, allowed
}

// Whatever is shown to be within a maximum is decided so.
func TestWithinIsSound(t *testing.T) {
	within, allowed, n := 0, 0, int(policytest.Seeds(150))
	for seed := range n {
		ok, some := checkWithin(t, uint64(seed))
		if ok {
			within++
		}
		allowed += some
	}
	t.Logf("%d of %d within, %d requests allowed", within, n, allowed)
	if within < n/5 || allowed < n*5 {
		t.Errorf("%d of %d within, %d requests allowed: the test says too little", within, n, allowed)
	}
}

func FuzzWithin(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { checkWithin(t, seed) })
}

// Which of two learned policies is the base makes no difference.
func TestMergeCommutes(t *testing.T) {
	for seed := range policytest.Seeds(80) {
		d := policytest.NewDice(seed)
		a, b := d.Policy(), d.Policy()
		for i, p := range []*policy.Policy{a, b} {
			p.Filesystem = &policy.Filesystem{ReadOnly: []string{d.One("/a", "/b"), d.One("/c", "/d")}}
			rules := p.Network
			p.Network = map[string]*policy.Rule{}
			for key, r := range rules {
				if r.Learned = true; r.Binaries != nil {
					p.Network[key+string(rune('a'+i))] = r
				}
			}
			if d.Chance(50) {
				p.Network["both"] = &policy.Rule{Learned: true, Binaries: []policy.Binary{{Path: "/bin/a"}}, Endpoints: []policy.Endpoint{{Host: "a.example.com", Port: 443}}}
			}
		}
		ab, ba := policy.Merge(a, b), policy.Merge(b, a)
		if policytest.Text(t, ab) != policytest.Text(t, ba) {
			t.Fatalf("seed %d:\n%s\n%s", seed, policytest.Text(t, ab), policytest.Text(t, ba))
		}
		if again := policy.Merge(ab, a); policytest.Text(t, again) != policytest.Text(t, ab) {
			t.Fatalf("seed %d: merged again:\n%s\n%s", seed, policytest.Text(t, ab), policytest.Text(t, again))
		}
		one, other := evaluator(t, ab), evaluator(t, ba)
		for range 50 {
			r := request(d)
			x, _ := one(r)
			if y, _ := other(r); x != y {
				t.Fatalf("seed %d: %+v: %+v, %+v", seed, r, x, y)
			}
		}
	}
}

// What no difference is told of decides alike.
func TestCompareIsSound(t *testing.T) {
	equal, n := 0, policytest.Seeds(150)
	for seed := range n {
		d := policytest.NewDice(seed)
		p := d.Policy()
		policytest.Settle(p)
		wider := d.Wider(p)
		policytest.Settle(wider)
		for _, other := range []*policy.Policy{p.Canonical(), wider} {
			if policy.Compare(p, other) != nil {
				continue
			}
			equal++
			one, two := evaluator(t, p), evaluator(t, other)
			for range 50 {
				r := request(d)
				x, _ := one(r)
				if y, _ := two(r); x.Decision != y.Decision {
					t.Fatalf("seed %d: %+v %+v: %+v, %+v\n%s\n%s", seed, r, r.HTTP, x, y, policytest.Text(t, p), policytest.Text(t, other))
				}
			}
		}
	}
	if equal < int(n) {
		t.Errorf("%d are equal: a policy differs from its canonical form", equal)
	}
}

// evaluator returns what decides actions by a policy alone.
func evaluator(t testing.TB, p *policy.Policy) func(decision.Action) (decision.Answer, error) {
	t.Helper()
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return func(a decision.Action) (decision.Answer, error) {
		evaluation, err := decision.Snapshot{Effective: e}.Evaluate(a)
		return evaluation.Answer, err
	}
}
