// SPDX-License-Identifier: Apache-2.0

package prover

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// Excess is something a policy allows that could not be shown to be allowed by
// the maximum.
type Excess struct {
	// Field is where the policy says it, such as
	// "network_policies.github.endpoints[0]", and Rule that rule's key; it is
	// empty for files, Landlock and the process.
	Rule, Field string
	// What is allowed, in the words of Diff.
	What string
	// Reason says why the maximum does not contain it, as far as is known.
	Reason string
	// Nearest is the key of the maximum's rule that comes nearest; "" if none does.
	Nearest string
}

// String renders "field: what: reason".
func (x Excess) String() string {
	s := x.Field + ": " + x.What + ": " + x.Reason
	if x.Nearest != "" {
		s += " (nearest rule: " + printable.Text(x.Nearest) + ")"
	}
	return s
}

// ExcessError is why a policy is not shown to be within a maximum. It is never
// empty.
type ExcessError struct {
	Excesses []Excess
	// More is how many there are besides.
	More int
}

// maxExcesses bounds how many an ExcessError lists.
const maxExcesses = 100

// Error renders all of them on one line; print the elements for one a line.
func (e *ExcessError) Error() string {
	lines := make([]string, len(e.Excesses))
	for i, x := range e.Excesses {
		lines[i] = x.String()
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "; ")
}

// Within returns nil only if it is proven that the maximum allows whatever p
// allows: every connection, address and request, and every file. What a rule
// for the same host means depends on the others (an endpoint that is inspected
// narrows one that is not), so that all of them are compared. Otherwise the
// error is an *ExcessError, which may name what is contained but could not be
// shown to be; either policy's Errors, if it does not validate.
//
// Paths of binaries and files are compared as they are written. Where they are
// symbolic links in a container, the same links are assumed to lie within the
// same patterns.
func Within(p, maximum *policy.Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if err := maximum.Validate(); err != nil {
		return fmt.Errorf("maximum: %w", err)
	}
	c := &containment{patterns: patterns{maxEffort}}
	var err error
	if c.p, err = newGrants(p); err != nil {
		return err
	}
	if c.maximum, err = newGrants(maximum); err != nil {
		return fmt.Errorf("maximum: %w", err)
	}
	for _, g := range c.p.all {
		for _, s := range g.services() {
			for _, b := range g.binaries {
				c.connection(atom{g, s, b})
			}
		}
	}
	c.files(p, maximum)
	c.process(p, maximum)
	if len(c.excesses) == 0 {
		return nil
	}
	return &ExcessError{c.excesses, c.more}
}

// containment is one comparison under way.
type containment struct {
	patterns
	p, maximum *grants
	excesses   []Excess
	more       int
}

func (c *containment) exceeds(x Excess) {
	if c.effort < 0 {
		x.Reason = "cannot be shown to be within the maximum: the policies are too complex to compare"
	}
	if slices.Contains(c.excesses, x) {
		return
	}
	if len(c.excesses) == maxExcesses {
		c.more++
		return
	}
	c.excesses = append(c.excesses, x)
}

// grant is an endpoint of a rule, ready to be compared.
type grant struct {
	rule     string
	field    string
	source   *policy.Endpoint
	protocol *policy.Protocol
	kind     policy.HostKind
	learned  bool
	host     *pattern
	binaries []*pattern // anyText for a rule without
	path     *pattern
	weight   int // the path's specificity
	prefixes []netip.Prefix
	allow    []*requestPattern
	deny     []*requestPattern
	exact    map[string][]*requestPattern // of allow, by the path as it is written
}

// inspects reports whether the endpoint is decided per request.
func (g *grant) inspects() bool { return g.protocol.Rank > 0 }

func (g *grant) enforces() bool { return g.source.Enforcement == policy.EnforcementEnforce }

func (g *grant) services() []policy.Service {
	var all []policy.Service
	for _, port := range g.source.PortList() {
		all = append(all, policy.Service{Port: port, UDP: g.source.Protocol == policy.ProtocolUDP})
	}
	return all
}

// trusted reports whether the host's private addresses are reachable without
// being listed.
func (g *grant) trusted() bool {
	return g.kind == policy.ExactHost && !g.learned && len(g.prefixes) == 0
}

// hostService is a service of one host.
type hostService struct {
	host string
	policy.Service
}

// grants are all of a policy's, by service and host.
type grants struct {
	all   []*grant
	exact map[hostService][]*grant
	other map[policy.Service][]*grant // wildcards and endpoints without a host
	ports map[policy.Service][]*grant
}

func newGrants(p *policy.Policy) (*grants, error) {
	all := &grants{exact: map[hostService][]*grant{}, other: map[policy.Service][]*grant{},
		ports: map[policy.Service][]*grant{}}
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		r := p.Network[key]
		binaries := []*pattern{anyText}
		if r.Binaries != nil {
			binaries = nil
		}
		for _, b := range r.Binaries {
			pattern, err := binaryPattern(b.Path)
			if err != nil {
				return nil, err
			}
			binaries = append(binaries, pattern)
		}
		for i := range r.Endpoints {
			g, err := newGrant(&r.Endpoints[i])
			if err != nil {
				return nil, err
			}
			g.rule, g.field = key, policy.EndpointField(key, i)
			g.learned, g.binaries = r.Learned, binaries
			all.add(g)
		}
	}
	return all, nil
}

func newGrant(source *policy.Endpoint) (*grant, error) {
	g := &grant{source: source, protocol: policy.ProtocolOf(source.Protocol), host: hostPatternText(source.Host),
		weight: 0}
	switch {
	case source.Host == "":
		g.kind = policy.Hostless
	case strings.Contains(source.Host, "*"):
		g.kind = policy.WildcardHost
	}
	path, err := wildcard.CompileEndpointPath(source.Path)
	if err != nil {
		return nil, err
	}
	g.weight = path.Specificity
	if g.path, err = endpointPathPattern(source.Path); err != nil {
		return nil, err
	}
	for _, s := range source.AllowedIPs {
		prefix, err := policy.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		g.prefixes = append(g.prefixes, prefix)
	}
	return g, g.compileRequests()
}

func (a *grants) add(g *grant) {
	a.all = append(a.all, g)
	for _, s := range g.services() {
		a.ports[s] = append(a.ports[s], g)
		if g.kind == policy.ExactHost {
			key := hostService{g.host.text, s}
			a.exact[key] = append(a.exact[key], g)
		} else {
			a.other[s] = append(a.other[s], g)
		}
	}
}

// near returns the grants that may apply to a connection of the service to a
// host of the pattern. A process matches a rule by any of its ancestors too, so
// that no two rules' binaries exclude each other.
func (c *containment) near(of *grants, host *pattern, s policy.Service) []*grant {
	candidates := of.ports[s]
	if host.expr == "" {
		candidates = slices.Concat(of.exact[hostService{host.text, s}], of.other[s])
	}
	var near []*grant
	for _, g := range candidates {
		if !c.disjoint(host, g.host) {
			near = append(near, g)
		}
	}
	return near
}

// atom is the smallest part of a policy that is compared at once: connections of
// one binary's processes to one endpoint's host and port.
type atom struct {
	*grant
	service policy.Service
	binary  *pattern
}

// connections is what an atom allows, in the words of Diff.
func (a *atom) connections() string {
	program := a.binary.text
	if a.binary == anyText {
		program = "any program"
	}
	host := net.JoinHostPort(cmp.Or(wildcard.CanonicalHost(a.source.Host), "any host"), strconv.Itoa(int(a.service.Port)))
	if a.service.UDP {
		host += " (udp)"
	}
	return printable.Text(program + " to " + host)
}

// covered reports whether one of the binaries covers the pattern. Any program is more
// than every path: some have none.
func (c *containment) covered(binary *pattern, by *grant) bool {
	return slices.ContainsFunc(by.binaries, func(b *pattern) bool {
		return (binary != anyText || b == anyText) && c.within(binary, b)
	})
}

// applies reports whether a grant applies to all of an atom's connections.
func (c *containment) applies(g *grant, a *atom) bool {
	return c.within(a.host, g.host) && c.covered(a.binary, g)
}

// answered reports whether, wherever x of the maximum applies to connections of
// the atom, a grant of the policy that has the property applies as well.
func (c *containment) answered(x *grant, a *atom, property func(y *grant) bool) bool {
	for _, y := range c.near(c.p, a.host, a.service) {
		if !property(y) || !c.within(a.host, y.host) && !c.within(x.host, y.host) {
			continue
		}
		if c.covered(a.binary, y) || !slices.ContainsFunc(x.binaries, func(b *pattern) bool { return !c.covered(b, y) }) {
			return true
		}
	}
	return false
}

// connection compares one atom. It is contained if the connections are, and the
// addresses they reach, and the requests: each is allowed by itself.
func (c *containment) connection(a atom) {
	near := c.near(c.maximum, a.host, a.service)
	var sure []*grant
	for _, g := range near {
		if c.applies(g, &a) {
			sure = append(sure, g)
		}
	}
	if len(sure) == 0 {
		c.exceeds(c.unreachable(&a, near))
		return
	}
	c.addresses(&a, near, sure)
	c.requests(&a, near, sure)
}

func (a *atom) excess(what, nearest, format string, args ...any) Excess {
	return Excess{Rule: a.rule, Field: a.field, What: what, Nearest: nearest, Reason: fmt.Sprintf(format, args...)}
}

// unreachable says why the maximum has no endpoint for an atom.
func (c *containment) unreachable(a *atom, near []*grant) Excess {
	what := a.connections()
	for _, g := range near {
		if c.within(a.host, g.host) {
			return a.excess(what, g.rule, "the maximum has this endpoint for other binaries only")
		}
	}
	if len(near) > 0 {
		return a.excess(what, near[0].rule, "the maximum has %s only", printable.Text(near[0].source.Host))
	}
	for _, g := range c.maximum.all {
		if c.within(a.host, g.host) {
			return a.excess(what, g.rule, "the maximum has this host on other ports only")
		}
	}
	return a.excess(what, "", "no rule of the maximum names this endpoint")
}

// addresses compares what a host may resolve to. The kinds of naming a host
// admit addresses independently, and within a kind a list of allowed_ips
// silences the endpoints that have none; see CheckAddress.
func (c *containment) addresses(a *atom, near, sure []*grant) {
	controlPlane := policy.IsControlPlanePort(a.service.Port)
	if controlPlane && (a.trusted() || len(a.prefixes) > 0) {
		return // nothing is reachable there
	}
	silences := func(g *grant) bool { return len(g.prefixes) > 0 || controlPlane && g.trusted() }
	given := admission{}
	for kind := policy.ExactHost; kind <= policy.Hostless; kind++ {
		silenced := slices.ContainsFunc(near, func(x *grant) bool {
			return x.kind == kind && silences(x) && (len(a.prefixes) > 0 || !c.answered(x, a, func(y *grant) bool {
				return y.kind == a.kind && silences(y)
			}))
		})
		for _, g := range sure {
			switch {
			case g.kind != kind:
			case len(g.prefixes) > 0 && !controlPlane:
				given.prefixes = append(given.prefixes, g.prefixes...)
			case len(g.prefixes) == 0 && !silenced:
				given.public = true
				given.private = given.private || g.trusted() && !controlPlane
			}
		}
	}
	needed := a.prefixes
	literal, isAddress := wildcard.HostAddr(wildcard.CanonicalHost(a.source.Host))
	if isAddress && len(needed) == 0 {
		literal = ipaddr.Plain(literal)
		needed = []netip.Prefix{netip.PrefixFrom(literal, literal.BitLen())}
		if ipaddr.Never(literal) != "" || !a.trusted() && !ipaddr.Public(literal) {
			return
		}
	}
	switch {
	case len(needed) == 0 && a.trusted() && !given.private:
		c.exceeds(a.excess(a.connections(), sure[0].rule,
			"it may have private addresses, which the maximum does not trust it with: "+
				"name the host exactly in the maximum, or list allowed_ips in both"))
	case len(needed) == 0 && !given.public && !given.private:
		c.exceeds(a.excess(a.connections(), sure[0].rule, "the maximum limits its addresses with allowed_ips"))
	}
	for _, prefix := range needed {
		if !given.admits(prefix) {
			c.exceeds(a.excess(a.connections()+" at "+prefix.String(), sure[0].rule,
				"the maximum does not allow these addresses"))
		}
	}
}

// admission is what addresses the maximum surely lets a host have.
type admission struct {
	public, private bool
	prefixes        []netip.Prefix
}

func (d *admission) admits(p netip.Prefix) bool {
	if d.private || d.public && ipaddr.PublicPrefix(p) {
		return true
	}
	return slices.ContainsFunc(d.prefixes, func(in netip.Prefix) bool {
		return in.Bits() <= p.Bits() && in.Contains(p.Addr())
	})
}
