// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

// networkKind is for rules of network_policies.
type networkKind struct{}

// target is nothing for a proposal that is not made from denials.
func (networkKind) target(p *Proposal) target {
	if !p.learned() {
		return target{}
	}
	endpoint := &p.Rule.Endpoints[0]
	t := target{host: endpoint.Host, port: endpoint.Ports[0], binary: p.Rule.Binaries[0].Path}
	if endpoint.Protocol == policy.ProtocolUDP {
		t.protocol = endpoint.Protocol
	}
	return t
}

func (networkKind) ruleName(t target) string { return t.addition().Key() }

func (networkKind) restore(p *Proposal, e *Evidence) {
	e.restore(p.Evidence.Endpoints)
	e.tlsFault = p.Evidence.TLSFault
	for i := range p.endpoints() {
		endpoint := &p.Rule.Endpoints[i]
		if endpoint.Rules != nil || e.tlsFault != "" {
			continue
		}
		e.tlsSkip = endpoint.TLS == policy.TLSSkip
		// With TLS unknown nothing but connections was seen.
		e.connects, e.raw = e.tls == "", e.tls != ""
	}
}

func (networkKind) build(p *Proposal, e *Evidence) error {
	rule := BuildRule(e)
	if rule == nil {
		return errors.New("rule: allows nothing")
	}
	if err := rule.Validate(rule.Name); err != nil {
		return err
	}
	if p.Rule == nil && !dialable(e.target) {
		return errors.New("rule: is for what is never reachable, whatever a policy says")
	}
	p.Rule, p.Digest, p.Binary = rule, policy.RuleDigest(rule), e.target.binary
	p.BinarySHA256, p.Ancestors = e.sha256, e.ancestors
	p.Flags.Widened = !e.opaque() && e.widened()
	p.Rationale, p.SecurityNotes, p.Confidence = e.rationale(rule), e.notes(p.Flags), e.confidence()
	return nil
}

func (networkKind) check(p *Proposal) error {
	switch {
	case p.Rule == nil || len(p.Rule.Endpoints) == 0 || len(p.Rule.Binaries) == 0:
		return fmt.Errorf("proposal %s: rule: must have an endpoint and a binary", p.ID)
	case p.learned() && (len(p.Rule.Binaries) != 1 || !oneService(p.Rule.Endpoints)):
		return fmt.Errorf("proposal %s: rule: must have endpoints of one host and port, and one binary", p.ID)
	case p.Rule.Name != p.RuleName:
		return fmt.Errorf("proposal %s: rule_name %q: must be the rule's", p.ID, p.RuleName)
	case policy.RuleDigest(p.Rule) != p.Digest:
		return fmt.Errorf("proposal %s: digest: is not the rule's; the file was changed by hand", p.ID)
	}
	return nil
}

func (networkKind) section(p *Proposal) string { return "network_policies." + p.RuleName }

func (networkKind) checkEdit(p *Proposal, edit Edit) error {
	switch r := edit.Rule; {
	case edit.Filesystem != nil:
		return errors.New("has a filesystem_policy, not only a rule")
	case r == nil:
		return errors.New("has no network_policies." + p.RuleName)
	case len(r.Endpoints) == 0:
		return errors.New("has no endpoints: reject the proposal if it is not wanted")
	case len(r.Binaries) == 0:
		return errors.New("has no binaries: a rule without them is for any program")
	case r.Name != p.RuleName:
		return errors.New("has another name: it must stay " + p.RuleName)
	}
	return nil
}

func (networkKind) digest(edit Edit) string { return policy.RuleDigest(edit.Rule) }

func (networkKind) add(_ *ledger, learned *policy.Policy, p *Proposal, edit Edit) {
	if learned.Network == nil {
		learned.Network = map[string]*policy.Rule{}
	}
	learned.Network[p.RuleName] = edit.Rule
}

func (networkKind) remove(_ *ledger, learned *policy.Policy, p *Proposal) {
	delete(learned.Network, p.RuleName)
}

func (networkKind) inForce(p *Proposal, learned *policy.Policy) bool {
	return sameRule(learned.Network[p.RuleName], p.granted().Rule)
}

func sameRule(a, b *policy.Rule) bool {
	return a != nil && b != nil && policy.RuleDigest(a) == policy.RuleDigest(b)
}

// related reports whether the rules name a host in common.
func (networkKind) related(a, b *Proposal) bool {
	return slices.ContainsFunc(a.Rule.Endpoints, func(e policy.Endpoint) bool { return names(b.Rule, e.Host) })
}

func names(r *policy.Rule, host string) bool {
	return slices.ContainsFunc(r.Endpoints, func(e policy.Endpoint) bool { return e.Host == host })
}

// covered does not count what the proposal itself once had approved: it would be undone with it.
func (networkKind) covered(p *Proposal, learned *policy.Policy) bool {
	alone := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{},
		Network: map[string]*policy.Rule{p.RuleName: asLearned(p.Rule)}}
	near := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{}, Network: map[string]*policy.Rule{}}
	for key, r := range learned.Network {
		if key != p.RuleName && slices.ContainsFunc(p.Rule.Endpoints,
			func(e policy.Endpoint) bool { return names(r, e.Host) }) {
			near.Network[key] = asLearned(r)
		}
	}
	return prover.Within(alone, near) == nil
}

// asLearned is a rule as it is in the effective policy.
func asLearned(r *policy.Rule) *policy.Rule {
	c := r.Clone()
	c.Learned = true
	return c
}

// summary says that whole connections are allowed where the rule lists no requests.
func (networkKind) summary(p *Proposal) Summary {
	s := Summary{Destinations: p.Services(), Allows: Grants(p.Rule)}
	if len(s.Allows) > 0 {
		return s
	}
	switch e := &p.Rule.Endpoints[0]; {
	case e.Protocol == policy.ProtocolUDP:
		s.Allows = []string{"any (UDP)"}
	case e.TLS == policy.TLSSkip:
		s.Allows = []string{"any (L4, tls: skip)"}
	default:
		s.Allows = []string{"any (L4)"}
	}
	return s
}

// Services are the hosts and ports of the proposal's rule, each once.
func (p *Proposal) Services() []string {
	var list []string
	for i := range p.endpoints() {
		e := &p.Rule.Endpoints[i]
		for _, port := range e.PortList() {
			s := net.JoinHostPort(cmp.Or(e.Host, "*"), strconv.Itoa(int(port)))
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list
}
