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
// looked into because the client rejects the sandbox's CA, makes a rule for the
// whole connection, as do connections that nothing was seen of.
func BuildRule(e *Evidence) *policy.Rule {
	endpoints := e.endpoints()
	if e.opaque() || len(endpoints) == 0 {
		if !e.opaque() && !e.connects {
			return nil
		}
		whole := policy.Endpoint{Host: e.target.host, Ports: []uint16{e.target.port}, Protocol: e.target.protocol}
		if e.tlsSkip {
			whole.TLS = policy.TLSSkip
		}
		endpoints = []policy.Endpoint{whole}
	}
	return &policy.Rule{
		Name:      e.ruleName(),
		Endpoints: endpoints,
		Binaries:  []policy.Binary{{Path: e.target.binary}},
	}
}

// ruleName is readable, and through the id the proposal's own.
func (e *Evidence) ruleName() string {
	return kinds[e.target.kind()].ruleName(e.target) + "_" + strings.TrimPrefix(e.id, "p-")
}

// idOfRule is the id of the proposal that a rule of that name was made for.
func idOfRule(name string) string { return "p-" + name[strings.LastIndexByte(name, '_')+1:] }

// word keeps a name's letters and digits.
func word(s string, limit int) string {
	w := strings.Map(func(r rune) rune {
		if r < 0x80 && (isLower(byte(r)) || isUpper(byte(r)) || isDigit(byte(r))) {
			return r
		}
		return '_'
	}, s)
	return w[:min(len(w), limit)]
}
