// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"openshell.ai/openshell/policy"
)

// Dice makes policies and requests of a small world, in which they meet often.
type Dice struct {
	*rand.Rand
	Content bool // the world has protocols that are decided by what requests carry
}

func NewDice(seed uint64) Dice {
	d := Dice{Rand: rand.New(rand.NewPCG(seed, 1))}
	d.Content = d.Chance(50)
	return d
}

func (d Dice) One(of ...string) string { return of[d.IntN(len(of))] }

func (d Dice) Chance(percent int) bool { return d.IntN(100) < percent }

func (d Dice) Policy() *policy.Policy {
	p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
	for i := range 1 + d.IntN(3) {
		p.Network["r"+strconv.Itoa(i)] = d.rule()
	}
	return p
}

func (d Dice) rule() *policy.Rule {
	r := &policy.Rule{}
	if d.Chance(70) {
		for range 1 + d.IntN(2) {
			r.Binaries = append(r.Binaries,
				policy.Binary{Path: d.One("/bin/a", "/bin/b", "/bin/*", "/opt/**", "/opt/x/*", "**", "/opt/x/{a,b}*")})
		}
		r.Learned = d.Chance(40)
	}
	for range 1 + d.IntN(2) {
		r.Endpoints = append(r.Endpoints, d.endpoint())
	}
	return r
}

func (d Dice) endpoint() policy.Endpoint {
	e := policy.Endpoint{
		Host: d.One("a.example.com", "a.example.com", "b-x.example.com", "*.example.com", "**.example.com",
			"*-x.example.com", "a.*.example.com", "10.0.0.1", "1.1.1.1"),
		Port: 443,
	}
	if d.Chance(10) {
		e.Port = 6443
	}
	if d.Chance(30) {
		e.AllowedIPs = []string{d.One("10.0.0.0/8", "10.0.0.0/24", "1.1.1.0/24", "10.0.0.1")}
		if d.Chance(20) {
			e.Host = ""
		}
	}
	if d.Chance(30) {
		e.TLS = d.One("", policy.TLSSkip)
		return e
	}
	if d.Content && d.Chance(60) {
		return d.contentEndpoint(e)
	}
	e.Protocol = policy.ProtocolREST
	e.Enforcement = d.One(policy.EnforcementEnforce, policy.EnforcementEnforce, policy.EnforcementEnforce,
		policy.EnforcementAudit)
	e.Path = d.One("", "", "", "/x/**", "/x/*", "/**", "/y/**")
	e.AllowEncodedSlash = d.Chance(15)
	d.Decide(&e, d.match)
	return e
}

// Decide gives an endpoint what it allows and denies.
func (d Dice) Decide(e *policy.Endpoint, match func() policy.L7Match) {
	if d.Chance(30) {
		e.Access = d.One(policy.AccessReadOnly, policy.AccessReadWrite, policy.AccessFull)
	} else {
		for range 1 + d.IntN(3) {
			e.Rules = append(e.Rules, policy.L7Allow{Allow: match()})
		}
	}
	for range max(0, d.IntN(4)-2) {
		e.DenyRules = append(e.DenyRules, match())
	}
}

// contentEndpoint makes an endpoint of one of the other protocols.
func (d Dice) contentEndpoint(e policy.Endpoint) policy.Endpoint {
	e.Protocol = d.One(policy.ProtocolGraphQL, policy.ProtocolGraphQL, policy.ProtocolJSONRPC, policy.ProtocolMCP,
		policy.ProtocolWebSocket)
	e.Enforcement = d.One(policy.EnforcementEnforce, policy.EnforcementEnforce, policy.EnforcementEnforce,
		policy.EnforcementAudit)
	e.Path = d.One("", "/x/**", "/x/*")
	if e.Protocol == policy.ProtocolGraphQL && d.Chance(20) {
		e.PersistedQueries = policy.PersistedQueriesAllowRegistered
		e.GraphQLPersistedQueries = map[string]policy.GraphQLOperation{"abc": {OperationType: d.One("query", "mutation"),
			Fields: []string{d.One("a", "b")}}}
	}
	if e.Protocol == policy.ProtocolMCP && d.Chance(40) {
		e.MCP = &policy.MCPOptions{AllowAllKnownMCPMethods: true}
	}
	graphql := e.Protocol == policy.ProtocolGraphQL || d.Chance(50)
	for range 1 + d.IntN(3) {
		e.Rules = append(e.Rules, policy.L7Allow{Allow: d.contentMatch(&e, graphql)})
	}
	for range max(0, d.IntN(4)-2) {
		e.DenyRules = append(e.DenyRules, d.contentMatch(&e, graphql))
	}
	p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{"r": {Endpoints: []policy.Endpoint{e}}}}
	if p.Validate() != nil {
		return d.endpoint() // rules that contradict each other
	}
	return e
}

func (d Dice) contentMatch(e *policy.Endpoint, graphql bool) policy.L7Match {
	switch {
	case e.Protocol == policy.ProtocolJSONRPC:
		return policy.L7Match{Method: d.One("a", "b", "*")}
	case e.Protocol == policy.ProtocolMCP && d.Chance(60):
		m := policy.L7Match{Method: policy.MethodToolsCall, Tool: policy.Matcher{Any: []string{d.One("t", "t*", "u")}}}
		if d.Chance(30) {
			m.Tool, m.Params = policy.Matcher{}, map[string]policy.Matcher{"name": m.Tool}
		}
		return m
	case e.Protocol == policy.ProtocolMCP:
		return policy.L7Match{Method: d.One("ping", "tools/list", "tools/*", "*")}
	case e.Protocol == policy.ProtocolWebSocket && !graphql:
		return policy.L7Match{Method: d.One("GET", "GET", policy.MethodWebSocketText, "*"), Path: d.One("**", "/x/*", "/x/a")}
	case e.Protocol == policy.ProtocolWebSocket && d.Chance(40):
		return policy.L7Match{Method: "GET", Path: d.One("**", "/x/*", "/x/a")}
	}
	m := policy.L7Match{OperationType: d.One("query", "mutation", "*", "Query")}
	if d.Chance(30) {
		m.OperationName = d.One("N", "N*", "M")
	}
	if d.Chance(50) {
		m.Fields = [][]string{{"a"}, {"a", "b"}, {"a*"}, {"b"}}[d.IntN(4)]
	}
	return m
}

func (d Dice) match() policy.L7Match {
	m := policy.L7Match{
		Method: d.One("GET", "HEAD", "POST", "*", "get"),
		Path:   d.One("**", "/**", "/x/**", "/x/*", "/x/a", "/x/?", "/x/[ab]", "/x/{a,b}", "/y/a", "/**/a", "/x/a*"),
	}
	if d.Chance(25) {
		m.Query = map[string]policy.Matcher{d.One("q",
			"r"): {Any: [][]string{{"1"}, {"*"}, {"1", "2"}, {"?"}, {"1*"}}[d.IntN(5)]}}
	}
	return m
}

// Wider returns a policy that often allows what p does.
func (d Dice) Wider(p *policy.Policy) *policy.Policy {
	w := p.Clone()
	if d.Chance(50) {
		w.Network["more"] = d.rule()
	}
	for _, key := range []string{"r0", "r1", "r2"} {
		r := w.Network[key]
		if r == nil || d.Chance(30) {
			continue
		}
		if d.Chance(20) {
			r.Binaries, r.Learned = nil, false
		}
		for i := range r.Endpoints {
			d.widen(&r.Endpoints[i], r)
		}
	}
	return w
}

func (d Dice) widen(e *policy.Endpoint, r *policy.Rule) {
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
		if e.Protocol != policy.ProtocolJSONRPC && e.Protocol != policy.ProtocolMCP && policy.Inspected(e.Protocol) &&
			e.DenyRules == nil {
			e.Access, e.Rules = policy.AccessFull, nil
		}
	case 4:
		*e = policy.Endpoint{Host: e.Host, Port: e.Port, AllowedIPs: e.AllowedIPs}
	case 5:
		if e.Host == "a.example.com" {
			e.Host = d.One("*.example.com", "**.example.com")
		}
	case 6:
		for i := range e.Rules {
			if e.Rules[i].Allow.Path == "" {
				e.Rules[i].Allow.Fields = nil
				continue
			}
			e.Rules[i].Allow.Path = d.One("/**", "/x/**", e.Rules[i].Allow.Path)
			e.Rules[i].Allow.Query = nil
		}
	}
}

// Settle leaves out what makes a policy contradict itself.
func Settle(p *policy.Policy) {
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
