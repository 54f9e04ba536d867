// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"
)

// Explanation says why an action is decided as it is, and what would change that.
type Explanation struct {
	// Action is the action in the words of Diff.
	Action   string       `json:"action"`
	Decision EvalDecision `json:"decision"`
	// Steps are the layers' findings, in the order in which they decide, up to
	// the one that says no.
	Steps []Step `json:"steps"`
	// Nearest are the rules that come nearest to allowing it, the nearest first.
	// They are empty where the policy allows it.
	Nearest []NearRule `json:"nearest,omitempty"`
	// Add is the entry of network_policies, as YAML, that would allow it and no
	// more. It is empty where the policy allows it, or no rule could.
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

// Explain says how Evaluate comes to its decision. The error is Evaluate's.
func (e *Engine) Explain(r EvalRequest, permissive bool) (Explanation, error) {
	decision, err := e.Evaluate(r, permissive)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{Action: r.describe(), Decision: decision}
	m := e.Connect(Connection{Binary: r.Binary, Ancestors: r.Ancestors, Host: r.Host, Port: r.Port, Protocol: r.Protocol})
	x.Steps = e.steps(&r, &m, decision)
	if decision.Decision == Allow.String() {
		return x, nil
	}
	x.Nearest = e.nearest(&r, &m)
	x.Add, x.Advice = e.addition(&r, &m)
	return x, nil
}

// describe renders an action as "/usr/bin/curl GET https://host:443/path".
func (r *EvalRequest) describe() string {
	e := Endpoint{Host: r.Host, Protocol: cmp.Or(r.Protocol, ProtocolTCP)}
	if r.HTTP == nil {
		return printable(r.Binary + " " + e.statements(r.Port)[0])
	}
	path, _, _ := strings.Cut(r.HTTP.Target, "?")
	match := L7Match{Method: r.HTTP.Method, Path: path}
	e.Protocol, e.Enforcement, e.Rules = ProtocolREST, EnforcementEnforce, []L7Allow{{match}}
	return printable(r.Binary + " " + e.statements(r.Port)[0])
}

// steps tells what each layer found, up to the decision.
func (e *Engine) steps(r *EvalRequest, m *Match, d EvalDecision) []Step {
	connection := Step{Layer: "l4", Outcome: Allow.String(), Rules: m.Rules()}
	switch {
	case m.Allowed && m.Inspect:
		connection.Reason = "the connection is allowed, and each request is decided"
	case m.Allowed:
		connection.Reason = "the connection is allowed, whatever is said over it"
	default:
		connection.Outcome, connection.Reason = Deny.String(), m.Reason
		if d.Decision == Audit.String() || d.Layer != "l4" {
			connection.Outcome = Audit.String()
		}
	}
	steps := []Step{connection}
	if connection.Outcome == Deny.String() {
		return steps
	}
	addresses := Step{Layer: "ssrf", Outcome: Allow.String()}
	addrs, _ := r.check()
	switch {
	case d.Layer == "ssrf":
		addresses.Outcome, addresses.Reason = Deny.String(), d.Reason
		return append(steps, addresses)
	case len(addrs) == 0:
		addresses.Outcome, addresses.Reason = "skip", "no resolved addresses were given: the proxy checks each"
	default:
		addresses.Reason = "every resolved address may be dialled"
	}
	steps = append(steps, addresses)
	if d.Layer == "l7" {
		request := Step{Layer: "l7", Outcome: d.Decision, Reason: d.Reason}
		if d.Decision == Allow.String() {
			request.Reason = "a rule of the endpoint allows the request"
		}
		steps = append(steps, request)
	}
	return steps
}

// nearest finds the rules that come nearest to allowing the action.
func (e *Engine) nearest(r *EvalRequest, m *Match) []NearRule {
	return e.source.Nearest(r.Host, r.Port, r.Protocol == ProtocolUDP, m.Rules())
}

// addition returns the rule that would allow the action. It is tried before it is
// proposed; where it does not help, the reason is the advice.
func (e *Engine) addition(r *EvalRequest, m *Match) (yaml, advice string) {
	rule := &Rule{Endpoints: []Endpoint{{Host: canonicalHost(r.Host), Port: r.Port}}, Binaries: []Binary{{r.Binary}}}
	ep := &rule.Endpoints[0]
	if r.Protocol == ProtocolUDP {
		ep.Protocol = ProtocolUDP
	}
	addrs, _ := r.check()
	for _, a := range addrs {
		if a = ipaddr.Plain(a); a.IsValid() && (!ipaddr.Public(a) || m.CheckAddress(a, r.Port) != nil && m.Allowed) {
			ep.AllowedIPs = append(ep.AllowedIPs, netip.PrefixFrom(a, a.BitLen()).String())
		}
	}
	if len(ep.AllowedIPs) > 0 {
		// Once some are listed, the others have to be.
		ep.AllowedIPs = nil
		for _, a := range addrs {
			ep.AllowedIPs = append(ep.AllowedIPs, netip.PrefixFrom(ipaddr.Plain(a), ipaddr.Plain(a).BitLen()).String())
		}
	}
	if r.HTTP != nil && (m.Inspect || !m.Allowed) {
		verdict, err := m.evaluate(r, false, new(Evaluation))
		if err != nil {
			return "", "no rule allows such a request: " + err.Error()
		}
		switch {
		case !m.Allowed || verdict.Decision == Allow:
			verdict = r.unseen()
		case len(verdict.Missing) == 0:
			return "", "adding a rule does not help: " + verdict.Reason
		}
		ep.Protocol, ep.Enforcement, ep.Path = cmp.Or(verdict.Protocol, ProtocolREST), EnforcementEnforce, verdict.Path
		if verdict.Decision == Audit {
			ep.Enforcement = EnforcementAudit // endpoints that overlap have to agree
		}
		for _, missing := range verdict.Missing {
			ep.Rules = append(ep.Rules, L7Allow{missing})
		}
	}
	candidate := e.source.Clone()
	if candidate.Network == nil {
		candidate.Network = map[string]*Rule{}
	}
	key := candidate.unusedKey(r)
	candidate.Network[key] = rule
	tried, err := Compile(candidate, e.options)
	if err != nil {
		return "", "no rule could be found that allows it: " + err.Error()
	}
	if d, err := tried.Evaluate(*r, false); err != nil || d.Decision != Allow.String() {
		return "", "adding a rule does not help: " + d.Reason
	}
	data, err := encodeYAML(map[string]*Rule{key: rule})
	if err != nil {
		return "", err.Error()
	}
	return string(data), ""
}

// unseen is the verdict on a request over a connection that no rule allows: HTTP
// is all that is known of it.
func (r *EvalRequest) unseen() Verdict {
	target, _ := ParseTarget(r.HTTP.Method, r.HTTP.Target)
	return Verdict{Missing: target.Matches(r.HTTP.Method)}
}

// unusedKey makes a rule's key from what the action connects to.
func (p *Policy) unusedKey(r *EvalRequest) string {
	base := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, canonicalHost(r.Host))
	key := fmt.Sprintf("%s_%d", base[:min(len(base), 100)], r.Port)
	for i, first := 2, key; p.Network[key] != nil; i++ {
		key = fmt.Sprintf("%s_%d", first, i)
	}
	return key
}
