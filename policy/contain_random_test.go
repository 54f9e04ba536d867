// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// dice makes policies and requests of a small world, in which they meet often.
type dice struct {
	*rand.Rand
	content bool // the world has protocols that are decided by what requests carry
}

func newDice(seed uint64) dice {
	d := dice{Rand: rand.New(rand.NewPCG(seed, 1))}
	d.content = d.chance(50)
	return d
}

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d dice) policy() *Policy {
	p := &Policy{Version: 1, Network: map[string]*Rule{}}
	for i := range 1 + d.IntN(3) {
		p.Network["r"+strconv.Itoa(i)] = d.rule()
	}
	return p
}

func (d dice) rule() *Rule {
	r := &Rule{}
	if d.chance(70) {
		for range 1 + d.IntN(2) {
			r.Binaries = append(r.Binaries, Binary{d.one("/bin/a", "/bin/b", "/bin/*", "/opt/**", "/opt/x/*", "**", "/opt/x/{a,b}*")})
		}
		r.Learned = d.chance(40)
	}
	for range 1 + d.IntN(2) {
		r.Endpoints = append(r.Endpoints, d.endpoint())
	}
	return r
}

func (d dice) endpoint() Endpoint {
	e := Endpoint{
		Host: d.one("a.example.com", "a.example.com", "b-x.example.com", "*.example.com", "**.example.com", "*-x.example.com", "a.*.example.com", "10.0.0.1", "1.1.1.1"),
		Port: 443,
	}
	if d.chance(10) {
		e.Port = 6443
	}
	if d.chance(30) {
		e.AllowedIPs = []string{d.one("10.0.0.0/8", "10.0.0.0/24", "1.1.1.0/24", "10.0.0.1")}
		if d.chance(20) {
			e.Host = ""
		}
	}
	if d.chance(30) {
		e.TLS = d.one("", TLSSkip)
		return e
	}
	if d.content && d.chance(60) {
		return d.contentEndpoint(e)
	}
	e.Protocol = ProtocolREST
	e.Enforcement = d.one(EnforcementEnforce, EnforcementEnforce, EnforcementEnforce, EnforcementAudit)
	e.Path = d.one("", "", "", "/x/**", "/x/*", "/**", "/y/**")
	e.AllowEncodedSlash = d.chance(15)
	d.decide(&e, d.match)
	return e
}

// decide gives an endpoint what it allows and denies.
func (d dice) decide(e *Endpoint, match func() L7Match) {
	if d.chance(30) {
		e.Access = d.one(AccessReadOnly, AccessReadWrite, AccessFull)
	} else {
		for range 1 + d.IntN(3) {
			e.Rules = append(e.Rules, L7Allow{match()})
		}
	}
	for range max(0, d.IntN(4)-2) {
		e.DenyRules = append(e.DenyRules, match())
	}
}

// contentEndpoint makes an endpoint of one of the other protocols.
func (d dice) contentEndpoint(e Endpoint) Endpoint {
	e.Protocol = d.one(ProtocolGraphQL, ProtocolGraphQL, ProtocolJSONRPC, ProtocolMCP, ProtocolWebSocket)
	e.Enforcement = d.one(EnforcementEnforce, EnforcementEnforce, EnforcementEnforce, EnforcementAudit)
	e.Path = d.one("", "/x/**", "/x/*")
	if e.Protocol == ProtocolGraphQL && d.chance(20) {
		e.PersistedQueries = PersistedQueriesAllowRegistered
		e.GraphQLPersistedQueries = map[string]GraphQLOperation{"abc": {OperationType: d.one("query", "mutation"), Fields: []string{d.one("a", "b")}}}
	}
	if e.Protocol == ProtocolMCP && d.chance(40) {
		e.MCP = &MCPOptions{AllowAllKnownMCPMethods: true}
	}
	graphql := e.Protocol == ProtocolGraphQL || d.chance(50)
	for range 1 + d.IntN(3) {
		e.Rules = append(e.Rules, L7Allow{d.content1(&e, graphql)})
	}
	for range max(0, d.IntN(4)-2) {
		e.DenyRules = append(e.DenyRules, d.content1(&e, graphql))
	}
	p := &Policy{Version: 1, Network: map[string]*Rule{"r": {Endpoints: []Endpoint{e}}}}
	if p.Validate() != nil {
		return d.endpoint() // rules that contradict each other
	}
	return e
}

func (d dice) content1(e *Endpoint, graphql bool) L7Match {
	switch {
	case e.Protocol == ProtocolJSONRPC:
		return L7Match{Method: d.one("a", "b", "*")}
	case e.Protocol == ProtocolMCP && d.chance(60):
		m := L7Match{Method: methodToolsCall, Tool: Matcher{[]string{d.one("t", "t*", "u")}}}
		if d.chance(30) {
			m.Tool, m.Params = Matcher{}, map[string]Matcher{"name": m.Tool}
		}
		return m
	case e.Protocol == ProtocolMCP:
		return L7Match{Method: d.one("ping", "tools/list", "tools/*", "*")}
	case e.Protocol == ProtocolWebSocket && !graphql:
		return L7Match{Method: d.one("GET", "GET", methodWebSocketText, "*"), Path: d.one("**", "/x/*", "/x/a")}
	case e.Protocol == ProtocolWebSocket && d.chance(40):
		return L7Match{Method: "GET", Path: d.one("**", "/x/*", "/x/a")}
	}
	m := L7Match{OperationType: d.one("query", "mutation", "*", "Query")}
	if d.chance(30) {
		m.OperationName = d.one("N", "N*", "M")
	}
	if d.chance(50) {
		m.Fields = [][]string{{"a"}, {"a", "b"}, {"a*"}, {"b"}}[d.IntN(4)]
	}
	return m
}

func (d dice) match() L7Match {
	m := L7Match{
		Method: d.one("GET", "HEAD", "POST", "*", "get"),
		Path:   d.one("**", "/**", "/x/**", "/x/*", "/x/a", "/x/?", "/x/[ab]", "/x/{a,b}", "/y/a", "/**/a", "/x/a*"),
	}
	if d.chance(25) {
		m.Query = map[string]Matcher{d.one("q", "r"): {Any: [][]string{{"1"}, {"*"}, {"1", "2"}, {"?"}, {"1*"}}[d.IntN(5)]}}
	}
	return m
}

// wider returns a policy that often allows what p does.
func (d dice) wider(p *Policy) *Policy {
	w := p.Clone()
	if d.chance(50) {
		w.Network["more"] = d.rule()
	}
	for _, key := range []string{"r0", "r1", "r2"} {
		r := w.Network[key]
		if r == nil || d.chance(30) {
			continue
		}
		if d.chance(20) {
			r.Binaries, r.Learned = nil, false
		}
		for i := range r.Endpoints {
			d.widen(&r.Endpoints[i], r)
		}
	}
	return w
}

func (d dice) widen(e *Endpoint, r *Rule) {
	switch d.IntN(7) {
	case 0:
		e.DenyRules = nil
	case 1:
		if e.Host != "" {
			e.AllowedIPs = nil
		}
		r.Learned = false
	case 2:
		e.Path, e.DenyRules = "", nil
	case 3:
		if e.Protocol != ProtocolJSONRPC && e.Protocol != ProtocolMCP && inspected(e.Protocol) && e.DenyRules == nil {
			e.Access, e.Rules = AccessFull, nil
		}
	case 4:
		*e = Endpoint{Host: e.Host, Port: e.Port, AllowedIPs: e.AllowedIPs}
	case 5:
		if e.Host == "a.example.com" {
			e.Host = d.one("*.example.com", "**.example.com")
		}
	case 6:
		for i := range e.Rules {
			if e.Rules[i].Allow.Path == "" {
				e.Rules[i].Allow.Fields = nil
				continue
			}
			e.Rules[i].Allow.Path = d.one("/**", "/x/**", e.Rules[i].Allow.Path)
			e.Rules[i].Allow.Query = nil
		}
	}
}

func (d dice) request() EvalRequest {
	binary := func() string { return d.one("/bin/a", "/bin/b", "/bin/c", "/opt/y", "/opt/x/a", "/opt/x/c/d") }
	r := EvalRequest{
		Binary: binary(),
		Host:   d.one("a.example.com", "a.example.com", "A.example.com.", "b-x.example.com", "a.b.example.com", "c.example.com", "10.0.0.1", "1.1.1.1", "10.0.0.2"),
		Port:   443,
	}
	if d.chance(30) {
		r.Ancestors = []string{binary()}
	}
	if d.chance(10) {
		r.Port = 6443
	}
	if _, literal := hostAddr(r.Host); !literal && d.chance(60) {
		r.ResolvedIPs = []string{d.one("1.1.1.1", "1.1.2.1", "10.0.0.1", "10.0.0.9", "10.9.9.9", "127.0.0.1", "2606:4700::1")}
	}
	if d.chance(85) {
		r.HTTP = &EvalHTTP{
			Method: d.one("GET", "HEAD", "POST", "PUT", "DELETE"),
			Target: d.one("/x/a", "/x/b", "/x/ab", "/y/a", "/", "/x", "/x/a/a", "/x/%2Fa", "/z/a") +
				d.one("", "", "?q=1", "?q=2", "?q=12", "?q=1&q=2", "?r=1", "?q=1&r=1", "?q=%zz", "?q=1.1"),
		}
	}
	if r.HTTP != nil && d.content && d.chance(75) {
		d.carry(&r)
	}
	return r
}

// carry gives a request something that it says.
func (d dice) carry(r *EvalRequest) {
	field := func() string { return d.one("a", "b", "ab", "c") }
	operation := fmt.Sprintf(`{"query":"%s %s { %s %s }"}`, d.one("query", "mutation"), d.one("", "N", "N1", "M"), field(), d.one("", field()))
	call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q}`, d.one("a", "b", "ping", "tools/list", "resources/read"))
	if d.chance(50) {
		call = fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q}}`, d.one("t", "t1", "u"))
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
		text := d.one(call, `{"type":"subscribe","id":"1","payload":`+operation+`}`, "hello")
		r.WebSocketText = &text
	}
}

// settle leaves out what makes a policy contradict itself.
func settle(p *Policy) {
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		r := p.Network[key]
		for p.Validate() != nil && len(r.Endpoints) > 1 && !r.Learned {
			r.Endpoints = r.Endpoints[1:]
		}
		if p.Validate() == nil {
			return
		}
		if r.Binaries != nil {
			r.Learned = true
		} else if len(p.Network) > 1 {
			delete(p.Network, key)
		}
	}
}

// checkWithin compares two random policies, and asks both the same if the one is
// within the other. It returns whether it is, and how much was allowed.
func checkWithin(t *testing.T, seed uint64) (bool, int) {
	t.Helper()
	d := newDice(seed)
	p := d.policy()
	maximum := d.policy()
	if d.chance(80) {
		maximum = d.wider(p)
	}
	settle(p)
	settle(maximum)
	if p.Validate() != nil || maximum.Validate() != nil {
		t.Fatalf("seed %d: not valid: %v, %v", seed, p.Validate(), maximum.Validate())
	}
	// Of different protocols for the same requests, not all can be shown.
	if err := Within(p, p); err != nil && !d.content {
		t.Errorf("seed %d: not within itself: %v\n%s", seed, err, text(t, p))
	}
	if Within(p, maximum) != nil {
		return false, 0
	}
	own, most := mustCompile(t, p), mustCompile(t, maximum)
	allowed := 0
	for range 300 {
		r := d.request()
		a, err := own.Evaluate(r, false)
		if err != nil {
			t.Fatal(err)
		}
		if a.Decision == Deny.String() {
			continue
		}
		allowed++
		if b, _ := most.Evaluate(r, false); b.Decision == Deny.String() {
			t.Fatalf("seed %d: %+v %+v is %+v, but the maximum says %+v\n%s\nmaximum:\n%s", seed, r, r.HTTP, a, b, text(t, p), text(t, maximum))
		}
	}
	return true, allowed
}

func text(t *testing.T, p *Policy) string {
	data, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Whatever is shown to be within a maximum is decided so.
func TestWithinIsSound(t *testing.T) {
	within, allowed, n := 0, 0, int(seeds(150))
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
