// SPDX-License-Identifier: Apache-2.0

package prover

import (
	"reflect"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/policy"
)

// requestPattern is an entry of rules or deny_rules, ready to be compared. Of a
// request it asks that its method, its path and each of its values match.
type requestPattern struct {
	source *policy.L7Match
	path   *pattern
	// values are sets of globs by what they are asked of: "query " and a
	// parameter, or a field of the language.
	values map[string][]*pattern
	method string // HTTP's; "*" where the entry is not about it
	// special is what the entry says besides; it has to be the same in both.
	special policy.L7Match
	// anything: the entry is for whatever passes because it is only logged, what
	// the policy denies included.
	anything bool
}

func newRequestPattern(source *policy.L7Match, protocol string) (*requestPattern, error) {
	m := &requestPattern{source: source, path: anyText, method: "*", special: *source, values: map[string][]*pattern{}}
	if take := comparisons[protocol].take; take != nil {
		if err := take(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (g *grant) compileRequests() error {
	g.exact = map[string][]*requestPattern{}
	allowed := g.source.Allowed()
	for i := range allowed {
		m, err := newRequestPattern(&allowed[i], g.source.Protocol)
		if err != nil {
			return err
		}
		g.allow = append(g.allow, m)
		g.exact[m.source.Path] = append(g.exact[m.source.Path], m)
	}
	for i := range g.source.DenyRules {
		m, err := newRequestPattern(&g.source.DenyRules[i], g.source.Protocol)
		if err != nil {
			return err
		}
		g.deny = append(g.deny, m)
	}
	return nil
}

// requests compares what may be said over an atom's connections.
func (c *containment) requests(a *atom, near, sure []*grant) {
	var inspecting []*grant
	for _, x := range near {
		if x.inspects() {
			inspecting = append(inspecting, x)
		}
	}
	if !a.inspects() {
		if !reflect.ValueOf(a.source.Special()).IsZero() && !slices.ContainsFunc(sure,
			func(s *grant) bool { return reflect.DeepEqual(a.source.Special(), s.source.Special()) }) {
			c.exceeds(a.excess(a.connections(), sure[0].rule, "cannot be shown to be within the maximum: it has other options"))
		}
		for _, x := range inspecting {
			if !c.answered(x, a, (*grant).inspects) {
				c.exceeds(a.excess(a.connections()+", anything", x.rule,
					"the maximum allows only what is inspected there (protocol: %s)", x.source.Protocol))
				return
			}
		}
		return
	}
	if len(inspecting) == 0 {
		return // the maximum does not look into the connections
	}
	if a.source.AllowEncodedSlash &&
		!slices.ContainsFunc(sure, func(s *grant) bool { return s.source.AllowEncodedSlash }) {
		c.exceeds(a.excess(a.connections(), sure[0].rule, "allow_encoded_slash is not part of the maximum"))
	}
	granting := slices.DeleteFunc(slices.Clone(sure), func(s *grant) bool { return !s.inspects() })
	if a.protocol.Content {
		c.calls(a, inspecting, granting)
		return
	}
	granting = slices.DeleteFunc(granting, func(s *grant) bool { return s.protocol.Content })
	if x := c.undecided(a, inspecting, granting); x != nil {
		c.exceeds(*x)
		return
	}
	if c.onlyLogs(a, inspecting, granting, false) {
		return
	}
	if !a.enforces() && !c.onlyLogs(a, inspecting, granting, true) {
		if c.request(a, everything(), inspecting, granting) != nil {
			c.exceeds(a.excess(a.connections(), inspecting[0].rule,
				"its enforcement is audit, so that anything passes: say enforcement: enforce"))
			return
		}
	}
	for _, m := range a.allow {
		if x := c.request(a, m, inspecting, granting); x != nil {
			c.exceeds(*x)
		}
	}
}

// everything is any request.
func everything() *requestPattern {
	return &requestPattern{source: &policy.L7Match{Method: "*", Path: "**"}, path: anyText, method: "*", anything: true}
}

// undecided returns an endpoint of the maximum by which requests of the atom's may
// be decided though it does not read them as the granting ones do.
func (c *containment) undecided(a *atom, inspecting, granting []*grant) *Excess {
	protocol := a.protocol
	if len(granting) > 0 {
		protocol = granting[0].protocol
	}
	own := slices.DeleteFunc(c.near(c.p, a.host, a.service),
		func(y *grant) bool { return !y.inspects() || c.disjoint(y.path, a.path) })
	for _, x := range inspecting {
		switch {
		case c.disjoint(x.path, a.path):
			continue
		case x.protocol == protocol && (!protocol.Content || sameReading(a.grant, x)):
			continue
		case x.protocol != protocol && !mixed(protocol) && !mixed(x.protocol):
			outranked := slices.ContainsFunc(granting, func(s *grant) bool { return outranks(s, x) && c.within(a.path, s.path) })
			if outranked || c.answered(x, a, func(y *grant) bool {
				return y.protocol == x.protocol && outranks(y, a.grant) && (c.within(x.path, y.path) || c.within(a.path, y.path)) &&
					!slices.ContainsFunc(own, func(z *grant) bool { return z.protocol == a.protocol && outranks(z, y) })
			}) {
				continue
			}
		}
		excess := a.excess(a.connections(), x.rule, "cannot be shown to be within the maximum: the %s endpoint there has another protocol or other options", x.source.Protocol)
		return &excess
	}
	for _, y := range own {
		if mixed(y.protocol) != mixed(a.protocol) || a.protocol.Content && y.protocol == a.protocol &&
			!sameReading(a.grant, y) {
			excess := a.excess(a.connections(), "", "cannot be shown to be within the maximum: rule %s has another protocol or other options for it", printable.Text(y.rule))
			return &excess
		}
	}
	return nil
}

// outranks reports whether requests that both cover are decided by the protocol of
// g; see coverage.take.
func outranks(g, other *grant) bool {
	if g.weight != other.weight {
		return g.weight > other.weight
	}
	return g.protocol.Rank > other.protocol.Rank
}

// mixed reports whether a protocol has rules both on content and on method, path and query,
// which other endpoints' requests are decided by as well.
func mixed(p *policy.Protocol) bool { return p.HTTP && p.Content }

// sameReading reports whether two endpoints of a protocol have the same options.
func sameReading(g, other *grant) bool {
	same := comparisons[g.protocol.Name].sameReading
	return reflect.DeepEqual(g.source.Special(), other.source.Special()) && (same == nil || same(g.source, other.source))
}

// calls compares an endpoint that is decided by what requests carry, of which one
// may carry several operations. One endpoint of the maximum has to allow all of it:
// they may be decided together. Where that is plain HTTP, it has to allow anything.
func (c *containment) calls(a *atom, inspecting, granting []*grant) {
	first := a.excess(a.connections()+" ("+a.source.Protocol+")", inspecting[0].rule,
		"no endpoint of the maximum is shown to allow all of it")
	found := false
	for _, s := range granting {
		if !c.within(a.path, s.path) {
			continue
		}
		failed := c.callsWithin(a, s, inspecting)
		if failed == nil {
			return
		}
		if !found {
			first, found = *failed, true
		}
	}
	c.exceeds(first)
}

func (c *containment) callsWithin(a *atom, s *grant, inspecting []*grant) *Excess {
	granting := []*grant{s}
	if x := c.undecided(a, inspecting, granting); x != nil {
		return x
	}
	entries := a.allow
	switch {
	case !s.protocol.Content && !mixed(a.protocol):
		entries = []*requestPattern{everything()}
	case s.protocol != a.protocol:
		x := a.excess(a.connections(), s.rule, "cannot be shown to be within the maximum: its protocol is %s",
			s.source.Protocol)
		return &x
	case !a.enforces() && !c.onlyLogs(a, inspecting, granting, true):
		x := a.excess(a.connections(), s.rule, "its enforcement is audit, so that anything passes: say enforcement: enforce")
		return &x
	}
	if exceeds := comparisons[a.protocol.Name].exceeds; exceeds != nil && s.protocol == a.protocol {
		if reason := exceeds(a.source, s.source); reason != "" {
			x := a.excess(a.connections(), s.rule, "%s", reason)
			return &x
		}
	}
	for _, m := range entries {
		if x := c.request(a, m, inspecting, granting); x != nil {
			return x
		}
	}
	return nil
}

// onlyLogs reports whether the maximum lets anything pass on the atom's paths,
// since it enforces nothing there: the endpoints with the most specific path say
// whether a refusal is enforced. With audited, what the policy enforces as well is
// not counted.
func (c *containment) onlyLogs(a *atom, inspecting, granting []*grant, audited bool) bool {
	weight := -1
	for _, s := range granting {
		if c.within(a.path, s.path) {
			weight = max(weight, s.weight)
		}
	}
	if weight < 0 {
		return false
	}
	for _, x := range inspecting {
		if !x.enforces() || x.weight < weight || c.disjoint(x.path, a.path) {
			continue
		}
		if !audited || !c.answered(x, a, func(y *grant) bool {
			return y.inspects() && y.enforces() && y.weight >= a.weight && (c.within(x.path, y.path) || c.within(a.path, y.path))
		}) {
			return false
		}
	}
	return true
}

// request compares one entry of an atom's rules.
func (c *containment) request(a *atom, m *requestPattern, inspecting, granting []*grant) *Excess {
	what := a.connections() + ", " + printable.Text(m.source.Describe(""))
	if !slices.ContainsFunc(granting, func(s *grant) bool { return c.grants(s, a, m) }) {
		nearest := inspecting[0].rule
		if len(granting) > 0 {
			nearest = granting[0].rule
		}
		x := a.excess(what, nearest, "no rule of the maximum is shown to allow all of it")
		return &x
	}
	for _, x := range inspecting {
		if c.disjoint(x.path, a.path) || c.disjoint(x.path, m.path) {
			continue
		}
		for _, d := range x.deny {
			if c.disjoint(d.path, a.path) || c.apart(d, m) || c.answered(x, a, func(y *grant) bool {
				refuses := a.enforces() || !m.anything || y.enforces() && y.weight >= a.weight
				return y.inspects() && refuses && c.denies(y, a, m, x, d)
			}) {
				continue
			}
			x := a.excess(what, x.rule, "the maximum denies %s", printable.Text(d.source.Describe("")))
			return &x
		}
	}
	return nil
}

// grants reports whether an endpoint allows all that an entry of the atom does.
func (c *containment) grants(s *grant, a *atom, m *requestPattern) bool {
	if !c.within(a.path, s.path) && !c.within(m.path, s.path) {
		return false
	}
	var union []*pattern
	for _, n := range s.exact[m.source.Path] {
		if c.narrower(m, n) && c.sameValues(m, n) {
			return true
		}
	}
	for _, n := range s.allow {
		if n.path.expr == "" || !c.narrower(m, n) || !c.sameValues(m, n) {
			continue
		}
		if c.within(m.path, n.path) {
			return true
		}
		if len(union) < maxUnion {
			union = append(union, n.path)
		}
	}
	return len(union) > 1 && c.within(m.path, union...)
}

// maxUnion bounds how many globs are tried together.
const maxUnion = 16

// narrower compares all but the path and the query.
func (c *containment) narrower(m, n *requestPattern) bool {
	return methodWithin(m.method, n.method) && reflect.DeepEqual(m.special, n.special) &&
		policy.UpgradesWithin(m.source.Upgrade, n.source.Upgrade)
}

// methodWithin reports whether every method that a matches is one b matches.
func methodWithin(a, b string) bool {
	if b == "*" || strings.EqualFold(a, b) {
		return true
	}
	return a != "*" && policy.MethodMatches(b, a)
}

// methodsApart reports whether no method matches both.
func methodsApart(a, b string) bool {
	return a != "*" && b != "*" && !policy.MethodMatches(a, b) && !policy.MethodMatches(b, a)
}

// sameValues reports whether the values that m asks for are ones n asks for.
func (c *containment) sameValues(m, n *requestPattern) bool {
	for key, allowed := range n.values {
		values := m.values[key]
		if len(values) == 0 || slices.ContainsFunc(values, func(v *pattern) bool { return !c.within(v, allowed...) }) {
			return false
		}
	}
	return true
}

// apart reports whether a deny rule hits nothing that m allows.
func (c *containment) apart(deny, m *requestPattern) bool {
	if methodsApart(deny.method, m.method) || c.disjoint(deny.path, m.path) {
		return true
	}
	for key, denied := range deny.values {
		values := m.values[key]
		if len(values) > 0 && !slices.ContainsFunc(values, func(v *pattern) bool {
			return slices.ContainsFunc(denied, func(d *pattern) bool { return !c.disjoint(v, d) })
		}) {
			return true
		}
	}
	return false
}

// denies reports whether an endpoint of the policy denies what rule d of the
// maximum's endpoint x does, as far as entry m of the atom allows it.
func (c *containment) denies(y *grant, a *atom, m *requestPattern, x *grant, d *requestPattern) bool {
	if !c.within(a.path, y.path) && !c.within(m.path, y.path) && !c.within(x.path, y.path) && !c.within(d.path, y.path) {
		return false
	}
	return slices.ContainsFunc(y.deny, func(own *requestPattern) bool {
		return (methodWithin(d.method, own.method) || methodWithin(m.method, own.method)) &&
			reflect.DeepEqual(d.special, own.special) && c.sameValues(d, own) &&
			(c.within(d.path, own.path) || c.within(m.path, own.path))
	})
}
