// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// Options are the facts about a sandbox that compiling needs.
type Options struct {
	// BinaryAliases returns what else Connection.Aliases may have for a program
	// that the policy names by a path: what the path is a symbolic link to in each
	// of the sandbox's containers, since processes are known by the path that the
	// kernel resolved. No alias is a path. Nil: there is none.
	BinaryAliases func(path string) []string
	// HostAliases are the addresses that the container's hosts(5) gave its
	// engine's names for the host before the workload could write to it, by name.
	// Names other than those of HostAliases are not looked at. See
	// Match.CheckAddress.
	HostAliases map[string][]netip.Addr
	// Trusted are the site's own ranges, whose addresses count as public ones.
	Trusted []netip.Prefix
}

// Engine is a policy compiled for deciding. It is immutable and safe for
// concurrent use; the time of a decision depends on the rules that name the
// same host and port, not on how many others there are.
type Engine struct {
	names     map[nameKey]*bucket
	addrs     map[addrKey]*bucket
	hostless  map[policy.Service]*bucket
	wildcards wildcard.HostIndex[serviceBuckets]

	knownNames map[string]bool // names' names, whatever the port
	empty      bool            // no rules at all, which has a reason of its own

	trusted []netip.Prefix // of Options
}

type nameKey struct {
	name string
	policy.Service
}

type addrKey struct {
	addr netip.Addr
	policy.Service
}

// serviceBuckets are a host's buckets.
type serviceBuckets map[policy.Service]*bucket

// bucket holds the endpoints for one host and service, by binary.
type bucket struct {
	any   []*endpoint            // of rules for any binary
	exact map[string][]*endpoint // by the binary's path or alias
	globs wildcard.AffixIndex[binaryGlob]
	keys  []string // the rules', sorted
}

type binaryGlob struct {
	glob     wildcard.Glob
	endpoint *endpoint
}

// rule is a compiled rule.
type rule struct {
	key     string
	learned bool
}

// endpoint is a compiled endpoint.
type endpoint struct {
	rule              *rule
	kind              policy.HostKind
	tlsSkip           bool
	enforce           bool
	allowEncodedSlash bool
	allowedIPs        []netip.Prefix
	gateway           []netip.Addr // of a host alias that the operator named
	protocol          *policy.Protocol
	inspector         *inspector // nil where content does not decide
	path              wildcard.EndpointPath
	maxBody           int

	allow, deny requestSet // on method, path and query
	content     contentRules
}

// inspect reports whether the endpoint's requests are decided.
func (ep *endpoint) inspect() bool { return ep.protocol.Rank > 0 }

// Compile validates a policy and builds its index. The policy must not change
// afterwards.
func Compile(p *policy.Policy, o Options) (*Engine, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		names:      map[nameKey]*bucket{},
		addrs:      map[addrKey]*bucket{},
		hostless:   map[policy.Service]*bucket{},
		knownNames: map[string]bool{},
		empty:      len(p.Network) == 0,
		trusted:    o.Trusted,
	}
	// In key order, so that equal policies compile equally.
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		if err := e.add(key, p.Network[key], o); err != nil {
			return nil, fmt.Errorf("compile rule %s: %w", printable.Text(key), err)
		}
	}
	return e, nil
}

func (e *Engine) add(key string, r *policy.Rule, o Options) error {
	compiled := &rule{key: key, learned: r.Learned}
	exact, globs, err := compileBinaries(r, o)
	if err != nil {
		return err
	}
	for i := range r.Endpoints {
		source := &r.Endpoints[i]
		ep, err := compileEndpoint(compiled, source, o)
		if err != nil {
			return err
		}
		for _, port := range source.PortList() {
			b := e.bucket(source.Host, policy.Service{Port: port, UDP: source.Protocol == policy.ProtocolUDP})
			b.add(ep, exact, globs, r.Binaries == nil)
		}
	}
	return nil
}

// compileBinaries splits a rule's binaries into exact paths and globs, with
// their aliases added to the former.
func compileBinaries(r *policy.Rule, o Options) (exact []string, globs []wildcard.Glob, err error) {
	for _, b := range r.Binaries {
		if strings.Contains(b.Path, "*") {
			g, err := wildcard.CompileGlob(b.Path, '/')
			if err != nil {
				return nil, nil, err
			}
			globs = append(globs, g)
			continue
		}
		exact = append(exact, b.Path)
		if o.BinaryAliases != nil {
			exact = append(exact, o.BinaryAliases(b.Path)...)
		}
	}
	slices.Sort(exact)
	return slices.Compact(exact), globs, nil
}

func compileEndpoint(r *rule, source *policy.Endpoint, o Options) (*endpoint, error) {
	ep := &endpoint{
		rule:              r,
		kind:              source.Kind(),
		tlsSkip:           source.TLS == policy.TLSSkip,
		protocol:          policy.ProtocolOf(source.Protocol),
		maxBody:           source.MaxBody(),
		enforce:           source.Enforcement == policy.EnforcementEnforce,
		allowEncodedSlash: source.AllowEncodedSlash,
	}
	for _, s := range source.AllowedIPs {
		prefix, err := policy.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		ep.allowedIPs = append(ep.allowedIPs, prefix)
	}
	if host := wildcard.CanonicalHost(source.Host); !r.learned && slices.Contains(hostAliases, host) {
		ep.gateway = gatewayAddrs(o.HostAliases[host])
	}
	var err error
	if ep.path, err = wildcard.CompileEndpointPath(source.Path); err != nil {
		return nil, err
	}
	return ep, ep.compileRules(source)
}

// bucket returns the bucket for a host, which it indexes if it is new.
func (e *Engine) bucket(host string, s policy.Service) *bucket {
	host = wildcard.CanonicalHost(host)
	addr, literal := wildcard.HostAddr(host)
	switch {
	case host == "":
		return bucketAt(e.hostless, s)
	case literal:
		return bucketAt(e.addrs, addrKey{ipaddr.Plain(addr), s})
	case !strings.Contains(host, "*"):
		e.knownNames[host] = true
		return bucketAt(e.names, nameKey{host, s})
	default:
		w := e.wildcards.Add(host)
		if w.Value == nil {
			w.Value = serviceBuckets{}
		}
		return bucketAt(w.Value, s)
	}
}

func bucketAt[K comparable](m map[K]*bucket, key K) *bucket {
	b := m[key]
	if b == nil {
		b = &bucket{}
		m[key] = b
	}
	return b
}

func (b *bucket) add(ep *endpoint, exact []string, globs []wildcard.Glob, anyBinary bool) {
	if i, found := slices.BinarySearch(b.keys, ep.rule.key); !found {
		b.keys = slices.Insert(b.keys, i, ep.rule.key)
	}
	if anyBinary {
		b.any = append(b.any, ep)
	}
	if b.exact == nil && len(exact) > 0 {
		b.exact = map[string][]*endpoint{}
	}
	for _, path := range exact {
		b.exact[path] = append(b.exact[path], ep)
	}
	for _, g := range globs {
		b.globs.Add(g.Affix, binaryGlob{g, ep})
	}
}
