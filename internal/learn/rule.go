// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"

	"openshell.ai/openshell/policy"
)

// BuildRule returns the narrowest rule that allows what was seen, or nil where no rule
// can. It names one program, one host and one port.
//
// Requests and messages make an endpoint for exactly these, one for each of the endpoints that
// the policy declares and one for what it does not. Content that is not HTTP, or that cannot be
// looked into because the client rejects the sandbox's CA or the origin's TLS is none that the
// proxy can end, makes a rule for the whole connection, as do connections that nothing was seen of.
func BuildRule(e *Evidence) *policy.Rule {
	addition := e.target.addition()
	if e.opaque() {
		addition.Uninspected = e.uninspected()
	} else if addition.Content = e.content(); len(addition.Content) == 0 && !e.connects {
		return nil
	}
	rule := addition.Rule()
	rule.Name = e.ruleName()
	return rule
}

// addition is what a policy lacks for connections to a target.
func (t target) addition() *policy.Addition {
	return &policy.Addition{Binary: t.binary, Host: t.host, Port: t.port, UDP: t.protocol == policy.ProtocolUDP}
}

// ruleName is readable, and through the id the proposal's own.
func (e *Evidence) ruleName() string {
	return kinds[e.target.kind()].ruleName(e.target) + "_" + strings.TrimPrefix(e.id, "p-")
}

// idOfRule is the id of the proposal that a rule of that name was made for.
func idOfRule(name string) string { return "p-" + name[strings.LastIndexByte(name, '_')+1:] }
