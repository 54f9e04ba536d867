// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// coverage is what the endpoints whose path covers a request make of it, before
// its content is looked at.
type coverage struct {
	policy    string
	protocol  *policy.Protocol // that decides; nil where no endpoint covers the request
	inspector *inspector       // the protocol's
	path      string           // of the most specific endpoint of that protocol

	specificity int
	enforced    bool
	ambiguous   bool // protocols that read content in different ways tie
	content     bool // some of the most specific endpoints have rules on content
	// By the rules on method, path and query of all that cover it.
	allowed, denied bool
}

// cover finds the endpoints for a request, and applies their rules on method,
// path and query.
func (m *Match) cover(r *Request, method string) coverage {
	c := coverage{policy: m.Policy}
	query := parsedQuery{raw: r.RawQuery}
	for i := range m.count {
		ep := m.at(i)
		if !ep.inspect() || !ep.path.Match(r.Path) {
			continue
		}
		c.take(ep)
		c.allowed = c.allowed || ep.allow.match(r, method, &query, allValues)
		c.denied = c.denied || ep.deny.match(r, method, &query, anyValue)
	}
	return c
}

// take adds an endpoint that covers the request.
func (c *coverage) take(ep *endpoint) {
	switch specificity := ep.path.Specificity; {
	case !c.covered() || specificity > c.specificity:
		c.protocol, c.inspector, c.path, c.specificity = ep.protocol, ep.inspector, ep.path.Text, specificity
		c.enforced, c.ambiguous, c.content = ep.enforce, false, ep.content != nil
		return
	case specificity < c.specificity:
		return
	}
	c.enforced = c.enforced || ep.enforce
	c.content = c.content || ep.content != nil
	switch mine, its := c.protocol.Rank, ep.protocol.Rank; {
	case its > mine:
		c.protocol, c.inspector, c.path = ep.protocol, ep.inspector, ep.path.Text
	case its == mine && c.protocol != ep.protocol:
		c.ambiguous = true
	}
}

func (c *coverage) covered() bool { return c.protocol != nil }

// protocolName is "" where no endpoint covers the request.
func (c *coverage) protocolName() string {
	if c.protocol == nil {
		return ""
	}
	return c.protocol.Name
}

// covering are the endpoints whose path covers the request's.
func (m *Match) covering(path string) iter.Seq[*endpoint] {
	return func(yield func(*endpoint) bool) {
		for i := range m.count {
			if ep := m.at(i); ep.inspect() && ep.path.Match(path) && !yield(ep) {
				return
			}
		}
	}
}

func (c *coverage) decideHTTP(r *Request, method string) Verdict {
	switch {
	case c.denied:
		return c.refuse(r.reason(method, "blocked by deny rule"))
	case !c.allowed:
		return c.refuse(r.reason(method, r.asked()+"not permitted by policy"),
			policy.L7Match{Method: strings.ToUpper(method), Path: wildcard.EscapeGlob(r.Path), Upgrade: r.Upgrades})
	}
	return c.allow()
}

func (c *coverage) allow() Verdict {
	return Verdict{Decision: Allow, Policy: c.policy, Protocol: c.protocolName(), Path: c.path}
}

// maxMissing bounds how many matches a verdict names as missing.
const maxMissing = 100

// refuse denies, unless endpoints cover the request and do not enforce. Where no rule could allow the
// request, nothing is named as missing.
func (c *coverage) refuse(reason string, missing ...policy.L7Match) Verdict {
	v := Verdict{Policy: c.policy, Reason: reason, Protocol: c.protocolName(), Path: c.path}
	if missing = distinct(missing); c.expressible(missing) {
		v.Missing = missing[:min(len(missing), maxMissing)]
	}
	if c.covered() && !c.enforced {
		v.Decision = Audit
	}
	return v
}

// expressible reports whether rules can name the matches, each with nothing
// else: what a workload asks for may be too long, or look like a wildcard.
func (c *coverage) expressible(matches []policy.L7Match) bool {
	return !slices.ContainsFunc(matches,
		func(m policy.L7Match) bool { return c.protocol == nil || !c.protocol.CanAllow(&m) })
}

// malformed denies in every mode.
func (c *coverage) malformed(reason string) Verdict {
	return Verdict{Policy: c.policy, Reason: reason, Protocol: c.protocolName(), Path: c.path, Malformed: true}
}

// unseen denies what cannot be decided for want of the body.
func (c *coverage) unseen() Verdict {
	return Verdict{Policy: c.policy, Reason: "protocol " + c.protocolName() + " decides by the body, which was not seen",
		Protocol: c.protocolName(), Path: c.path}
}

// several denies what different protocols claim.
func (c *coverage) several(r *Request) Verdict {
	return Verdict{Policy: c.policy, Reason: printable.Text(r.Path) + " is covered by endpoints of different protocols: give them paths of their own", Protocol: c.protocolName(), Path: c.path}
}

// distinct drops matches that are given twice.
func distinct(matches []policy.L7Match) []policy.L7Match {
	if len(matches) < 2 {
		return matches
	}
	seen := make(map[string]bool, len(matches))
	return slices.DeleteFunc(matches, func(m policy.L7Match) bool {
		key, _ := json.Marshal(m) // of plain data: it cannot fail
		twice := seen[string(key)]
		seen[string(key)] = true
		return twice
	})
}
