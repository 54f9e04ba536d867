// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"openshell.ai/openshell/internal/wildcard"
)

// matcher checks a set of globs over values.
func (v *validator) matcher(path string, m Matcher) {
	if len(m.Any) == 0 {
		v.problem(path, "must be a glob or {any: [globs]}, with at least one")
	}
	for _, pattern := range m.Any {
		if v.plainText(path, pattern, wildcard.MaxGlob) {
			v.glob(path, pattern, '.')
		}
	}
}

// matches checks an endpoint's rules and deny rules.
func (v *validator) matches(path string, e *Endpoint) {
	for i := range e.Rules {
		v.match(Element(path+".rules", i)+".allow", e, &e.Rules[i].Allow)
	}
	for i := range e.DenyRules {
		if e.DenyRules[i].Upgrade != nil {
			v.problem(Element(path+".deny_rules", i)+".upgrade", "belongs to rules that allow: without one, no upgrade is")
			continue
		}
		v.match(Element(path+".deny_rules", i), e, &e.DenyRules[i])
	}
}

// match checks one rule by its endpoint's protocol. A field that the protocol
// does not have is refused: ignoring it could allow more than is said.
func (v *validator) match(path string, e *Endpoint, m *L7Match) {
	own := e.protocol()
	for _, p := range protocols {
		for _, f := range p.fields {
			if f.present(m) && p != own && !own.borrows(f.name, p.Name) {
				v.problem(path+"."+f.name, f.refused, e.Protocol)
			}
		}
	}
	if own.checkMatch != nil {
		own.checkMatch(v, path, e, m)
	}
}

// CanAllow reports whether rules of the protocol can have the match, which names literally
// what was seen.
func (p *Protocol) CanAllow(m *L7Match) bool {
	e := p.bare // not to make one for each refusal
	if p.fit != nil {
		e = &Endpoint{Protocol: p.Name, Rules: []L7Allow{{*m}}}
		p.fit(e)
	}
	v := &validator{}
	v.match("", e, m)
	return len(v.problems) == 0
}
