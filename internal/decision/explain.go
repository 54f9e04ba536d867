// SPDX-License-Identifier: Apache-2.0

package decision

import (
	"fmt"
	"net/netip"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// Explanation says why an action is decided as it is, and what would change that.
type Explanation struct {
	// Action is the action in the words of policy.Diff.
	Action   string `json:"action"`
	Decision Answer `json:"decision"`
	// Steps are the layers' findings, in the order in which they decide, up to the one that says no.
	Steps []Step `json:"steps"`
	// Nearest are the rules that come nearest to allowing it, the nearest first. They are empty where it is
	// allowed.
	Nearest []policy.NearRule `json:"nearest,omitempty"`
	// Add is the entry of network_policies, as YAML, that would allow it and no more. It is empty where it is
	// allowed, or no rule could.
	Add string `json:"add,omitempty"`
	// Advice says why no rule could be added.
	Advice string `json:"advice,omitempty"`
}

// Step is what one layer found.
type Step struct {
	Layer   string `json:"layer"`   // "l4", "ssrf", "l7"
	Outcome string `json:"outcome"` // "allow", "deny", "audit", or "skip" where it had nothing to decide on
	// Rules are the keys of the rules that name the connection, for l4.
	Rules  []string `json:"rules,omitempty"`
	Reason string   `json:"reason"`
}

// Explain says how Evaluate comes to its answer. effective is the policy that the snapshot decides by. The error
// is Evaluate's.
func (s Snapshot) Explain(effective *policy.Policy, a Action) (Explanation, error) {
	e, err := s.Evaluate(a)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{Action: a.describe(), Decision: e.Answer, Steps: e.steps(&a)}
	if e.Decision == Allowed.String() {
		return x, nil
	}
	x.Nearest = effective.Nearest(a.Host, a.Port, a.Protocol == policy.ProtocolUDP, e.Connection.effective.Rules())
	x.Add, x.Advice = s.addition(effective, &a, &e)
	return x, nil
}

func (a *Action) describe() string {
	if a.HTTP == nil {
		return policy.Describe(a.Binary, a.Host, a.Port, a.Protocol, nil)
	}
	path, _, _ := strings.Cut(a.HTTP.Target, "?")
	return policy.Describe(a.Binary, a.Host, a.Port, a.Protocol, &policy.L7Match{Method: a.HTTP.Method, Path: path})
}

// steps tells what each layer found, up to the decision.
func (e *Evaluation) steps(a *Action) []Step {
	c := e.Connection
	d := c.Decision()
	connection := Step{Layer: LayerL4, Outcome: d.Outcome.String(), Rules: c.effective.Rules(), Reason: d.Reason}
	switch {
	case d.Outcome == Allowed && c.DecidesRequests():
		connection.Reason = "the connection is allowed, and each request is decided"
	case d.Outcome == Allowed:
		connection.Reason = "the connection is allowed, whatever is said over it"
	}
	steps := []Step{connection}
	if d.Outcome == Denied {
		return steps
	}
	addresses := Step{Layer: LayerSSRF, Outcome: Allowed.String()}
	addrs, _ := a.check()
	switch {
	case e.Layer == LayerSSRF:
		addresses.Outcome, addresses.Reason = Denied.String(), e.Reason
		return append(steps, addresses)
	case len(addrs) == 0:
		addresses.Outcome, addresses.Reason = "skip", "no resolved addresses were given: the proxy checks each"
	default:
		addresses.Reason = "every resolved address may be dialled"
	}
	steps = append(steps, addresses)
	if e.Layer == LayerL7 {
		request := Step{Layer: LayerL7, Outcome: e.Decision, Reason: e.Reason}
		if e.Decision == Allowed.String() {
			request.Reason = "a rule of the endpoint allows the request"
		}
		steps = append(steps, request)
	}
	return steps
}

// addition returns the rule that would allow the action. It is tried before it is proposed; where it does not
// help, the reason is the advice.
func (s Snapshot) addition(effective *policy.Policy, a *Action, e *Evaluation) (yaml, advice string) {
	add, advice := a.missing(e)
	if add == nil {
		return "", advice
	}
	rule := add.Rule()
	candidate := effective.Clone()
	if candidate.Network == nil {
		candidate.Network = map[string]*policy.Rule{}
	}
	key := unusedKey(add.Key(), candidate)
	candidate.Network[key] = rule
	engine, err := engine.Compile(candidate, engine.Options{})
	if err != nil {
		return "", "no rule could be found that allows it: " + err.Error()
	}
	s.Effective, s.Permissive = engine, false
	if tried, err := s.Evaluate(*a); err != nil || tried.Decision != Allowed.String() {
		return "", "adding a rule does not help: " + tried.Reason
	}
	data, err := policy.MarshalRules(map[string]*policy.Rule{key: rule})
	if err != nil {
		return "", err.Error()
	}
	return string(data), ""
}

// missing is what the effective policy lacks for an action, or nil and why no rule would do.
func (a *Action) missing(e *Evaluation) (*policy.Addition, string) {
	c := e.Connection
	add := &policy.Addition{Binary: a.Binary, Host: wildcard.CanonicalHost(a.Host), Port: a.Port,
		UDP: a.Protocol == policy.ProtocolUDP}
	addrs, _ := a.check()
	listed := false // once some are, the others have to be
	for _, addr := range addrs {
		addr = ipaddr.Plain(addr)
		listed = listed || addr.IsValid() &&
			(!ipaddr.Public(addr) || c.Ruled() && c.effective.CheckAddress(addr, a.Port) != nil)
		add.AllowedIPs = append(add.AllowedIPs, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	if !listed {
		add.AllowedIPs = nil
	}
	if a.HTTP == nil || !c.SeesRequests() {
		return add, ""
	}
	missing, advice := a.missingMatches(c)
	if advice != "" {
		return nil, advice
	}
	content := policy.Content{Protocol: missing.Protocol, Path: missing.EndpointPath, Allow: missing.Missing}
	if missing.Outcome == Audited {
		content.Enforcement = policy.EnforcementAudit // endpoints that overlap have to agree
	}
	add.Content = []policy.Content{content}
	return add, ""
}

// missingMatches is the decision that says what an action's request lacks, or its message, or why no rule would
// do. Of a request over a connection that no rule allows, nothing is known but that it is HTTP.
func (a *Action) missingMatches(c *Connection) (d Decision, advice string) {
	e := Evaluation{Connection: Snapshot{Effective: c.snapshot.Effective}.Connect(a.connection())}
	request, err := a.request()
	if err != nil {
		return d, "no rule allows such a request: " + err.Error()
	}
	if c.Ruled() {
		d = e.decide(a, nil)
	}
	switch {
	case !c.Ruled(), d.Outcome == Allowed:
		return Decision{Missing: request.Matches()}, ""
	case len(d.Missing) == 0:
		return d, "adding a rule does not help: " + d.Reason
	}
	return d, ""
}

// unusedKey is a key that no rule of the policy has.
func unusedKey(key string, p *policy.Policy) string {
	for i, first := 2, key; p.Network[key] != nil; i++ {
		key = fmt.Sprintf("%s_%d", first, i)
	}
	return key
}
