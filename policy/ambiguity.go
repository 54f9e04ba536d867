// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// maxAmbiguities is how many pairs of endpoints are reported.
const maxAmbiguities = 20

// ambiguity finds endpoints that can match the same connection or request and
// disagree on what has to have one value. Like OpenShell, it refuses such a
// policy. Learned rules are only warned of: they are made beside whatever the
// base says, and the stricter of the two holds. So are a wildcard's addresses
// that differ from a name's.
type ambiguity struct {
	v        *validator
	services map[Service]*overlaps
	reported map[[2]string]bool
	clashes  map[[2]string][]string // by traits
}

// overlaps are one service's endpoints by what their hosts can have in common.
type overlaps struct {
	names     map[string]sites // by exact host, name or address
	wildcards map[string]sites // by the literal labels at the end
	hostless  sites
}

// sites are endpoints by their traits: those of the same agree.
type sites map[string][]site

// site is an endpoint and where it is.
type site struct {
	path     string
	key      string // its rule's
	index    int
	learned  bool
	endpoint *Endpoint
	host     wildcard.HostPattern
}

func (v *validator) ambiguities(p *Policy) {
	a := ambiguity{v: v, services: map[Service]*overlaps{}, reported: map[[2]string]bool{},
		clashes: map[[2]string][]string{}}
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		r := p.Network[key]
		if r == nil {
			continue
		}
		for i := range r.Endpoints {
			e := &r.Endpoints[i]
			path := EndpointField(key, i)
			if v.silent(path) {
				continue
			}
			s := site{path: path, key: key, index: i, learned: r.Learned, endpoint: e,
				host: wildcard.ParseHostPattern(wildcard.CanonicalHost(e.Host))}
			for _, port := range e.PortList() {
				a.add(s, Service{port, e.Protocol == ProtocolUDP})
			}
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(a.services),
		func(a, b Service) int { return cmp.Compare(a.Port, b.Port) }) {
		a.compareAll(a.services[s], s)
	}
}

func (a *ambiguity) add(s site, at Service) {
	o := a.services[at]
	if o == nil {
		o = &overlaps{names: map[string]sites{}, wildcards: map[string]sites{}, hostless: sites{}}
		a.services[at] = o
	}
	group := o.hostless
	switch host := wildcard.CanonicalHost(s.endpoint.Host); s.endpoint.Kind() {
	case ExactHost:
		group = groupAt(o.names, host)
	case WildcardHost:
		group = groupAt(o.wildcards, s.host.Suffix())
	}
	traits := s.endpoint.traits(s.learned)
	group[traits] = append(group[traits], s)
}

func groupAt(groups map[string]sites, key string) sites {
	if groups[key] == nil {
		groups[key] = sites{}
	}
	return groups[key]
}

func (a *ambiguity) compareAll(o *overlaps, at Service) {
	a.compareGroups(o.hostless, o.hostless, at)
	for _, host := range slices.Sorted(maps.Keys(o.names)) {
		own := o.names[host]
		a.compareGroups(own, own, at)
		a.compareGroups(own, o.hostless, at)
		for suffix, more := host, true; more; _, suffix, more = strings.Cut(suffix, ".") {
			a.compareGroups(own, o.wildcards[suffix], at)
		}
	}
	for _, last := range slices.Sorted(maps.Keys(o.wildcards)) {
		own := o.wildcards[last]
		a.compareGroups(own, o.hostless, at)
		for suffix, more := last, true; more; _, suffix, more = strings.Cut(suffix, ".") {
			a.compareGroups(own, o.wildcards[suffix], at)
		}
	}
}

// compareGroups looks at the hosts only where the traits clash, which keeps it
// linear for the many endpoints that agree.
func (a *ambiguity) compareGroups(some, others sites, at Service) {
	for _, traits := range slices.Sorted(maps.Keys(some)) {
		for _, its := range slices.Sorted(maps.Keys(others)) {
			if traits == its || len(a.clash(traits, its, some, others)) == 0 {
				continue
			}
			for i := range some[traits] {
				for j := range others[its] {
					if len(a.reported) > maxAmbiguities {
						return
					}
					a.report(&some[traits][i], &others[its][j], at, a.clash(traits, its, some, others))
				}
			}
		}
	}
}

// clash lists what endpoints of two traits disagree on.
func (a *ambiguity) clash(traits, its string, some, others sites) []string {
	pair := [2]string{traits, its}
	conflicts, known := a.clashes[pair]
	if !known {
		conflicts = some[traits][0].endpoint.conflicts(others[its][0].endpoint)
		a.clashes[pair] = conflicts
	}
	return conflicts
}

func (a *ambiguity) report(first, second *site, at Service, conflicts []string) {
	if first.path > second.path {
		first, second = second, first
		conflicts = first.endpoint.conflicts(second.endpoint)
	}
	pair := [2]string{first.path, second.path}
	hosts := first.endpoint.Kind() == Hostless || second.endpoint.Kind() == Hostless || first.host.Overlaps(second.host)
	if a.reported[pair] || !hosts {
		return
	}
	a.reported[pair] = true
	// A name is the way to say otherwise of one of a wildcard's hosts.
	tolerated := first.learned || second.learned || first.endpoint.Kind() != second.endpoint.Kind() &&
		len(conflicts) == 1 && first.endpoint.ips() != second.endpoint.ips()
	text := fmt.Sprintf("network policies '%s' endpoint[%d] (%s) and '%s' endpoint[%d] (%s) overlap on port %d with conflicting metadata: %s",
		printable.Text(first.key), first.index, first.endpoint.selector(),
		printable.Text(second.key), second.index,
		second.endpoint.selector(), at.Port, strings.Join(conflicts, "; "))
	switch {
	case tolerated:
		a.v.warn(second.path, "%s; the stricter holds, "+inOpenShell, text)
	case len(a.reported) > maxAmbiguities:
		a.v.problem(second.path, "more endpoints overlap with conflicting metadata")
	default:
		a.v.problem(second.path, "%s", text)
	}
}

func (e *Endpoint) selector() string { return printable.Text(cmp.Or(e.Host, "<any-host>") + e.Path) }

// traits is what an endpoint can conflict in, as one string.
func (e *Endpoint) traits(learned bool) string {
	return fmt.Sprintf("%q", []any{learned, e.Path, e.Protocol, e.TLS, e.ips(), e.enforcement(), e.AllowEncodedSlash,
		fmt.Sprint(e.ownTraits())})
}

// conflicts lists what two endpoints that can match the same disagree on.
func (e *Endpoint) conflicts(other *Endpoint) []string {
	var found []string
	differ := func(field string, a, b any) {
		if a != b {
			found = append(found, fmt.Sprintf("%s=%v vs %v", field, a, b))
		}
	}
	differ("transparent_tcp_eligible", e.Protocol == ProtocolTCP, other.Protocol == ProtocolTCP)
	differ("tls", cmp.Or(e.TLS, "auto"), cmp.Or(other.TLS, "auto"))
	if ips, its := e.ips(), other.ips(); ips != its {
		found = append(found, fmt.Sprintf("allowed_ips=[%s] vs [%s]", ips, its))
	}
	if !e.configures() || !other.configures() || !wildcard.PathsOverlap(e.Path, other.Path) {
		return found
	}
	differ("protocol", e.inspection(), other.inspection())
	differ("enforcement", e.enforcement(), other.enforcement())
	differ("allow_encoded_slash", e.AllowEncodedSlash, other.AllowEncodedSlash)
	if e.Protocol != other.Protocol {
		return found
	}
	its := other.ownTraits()
	for i, own := range e.ownTraits() {
		differ(own.name, own.value, its[i].value)
	}
	return found
}

// ownTraits are those of the endpoint's protocol.
func (e *Endpoint) ownTraits() []trait {
	if traits := e.protocol().traits; traits != nil {
		return traits(e)
	}
	return nil
}

// configures reports whether an endpoint says more than that it is allowed.
func (e *Endpoint) configures() bool {
	return e.inspection() != "" || len(e.AllowedIPs) > 0 || e.TLS != ""
}

func (e *Endpoint) inspection() string {
	if e.Protocol == ProtocolTCP {
		return ""
	}
	return e.Protocol
}

func (e *Endpoint) enforcement() string { return cmp.Or(e.Enforcement, EnforcementAudit) }

func (e *Endpoint) ips() string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(e.AllowedIPs))), ",")
}
