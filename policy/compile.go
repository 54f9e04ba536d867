// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"
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
}

// Engine is a policy compiled for deciding. It is immutable and safe for
// concurrent use; the time of a decision depends on the rules that name the
// same host and port, not on how many others there are.
type Engine struct {
	names     map[nameKey]*bucket
	addrs     map[addrKey]*bucket
	hostless  map[service]*bucket
	wildcards hostIndex

	knownNames map[string]bool // names' names, whatever the port
	empty      bool            // no rules at all, which has a reason of its own

	source  *Policy // for Explain
	options Options
}

// service is a port of one transport protocol.
type service struct {
	port uint16
	udp  bool
}

type nameKey struct {
	name string
	service
}

type addrKey struct {
	addr netip.Addr
	service
}

// bucket holds the endpoints for one host and service, by binary.
type bucket struct {
	any   []*endpoint            // of rules for any binary
	exact map[string][]*endpoint // by the binary's path or alias
	globs affixIndex[binaryGlob]
	keys  []string // the rules', sorted
}

type binaryGlob struct {
	glob     glob
	endpoint *endpoint
}

// rule is a compiled rule.
type rule struct {
	key     string
	learned bool
}

// hostKind is the way an endpoint names its host, the most specific first.
type hostKind int

const (
	exactHost hostKind = iota
	wildcardedHost
	hostless
)

// endpoint is a compiled endpoint.
type endpoint struct {
	rule              *rule
	kind              hostKind
	tlsSkip           bool
	inspect           bool // has an L7 protocol that is decided per request
	enforce           bool
	allowEncodedSlash bool
	allowedIPs        []netip.Prefix
	gateway           []netip.Addr // of a host alias that the operator named
	protocol          string
	path              endpointPath
	maxBody           int

	allow, deny requestSet    // of rest and websocket
	graphql     *graphqlRules // of graphql, and of websocket where it decides operations
	calls       *callRules    // of json-rpc and mcp
}

// Compile validates a policy and builds its index. The policy must not change
// afterwards.
func Compile(p *Policy, o Options) (*Engine, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		names:      map[nameKey]*bucket{},
		addrs:      map[addrKey]*bucket{},
		hostless:   map[service]*bucket{},
		knownNames: map[string]bool{},
		empty:      len(p.Network) == 0,
		source:     p,
		options:    o,
	}
	// In key order, so that equal policies compile equally.
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		if err := e.add(key, p.Network[key], o); err != nil {
			return nil, fmt.Errorf("compile rule %s: %w", printable(key), err)
		}
	}
	return e, nil
}

func (e *Engine) add(key string, r *Rule, o Options) error {
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
			b := e.bucket(source.Host, service{port, source.Protocol == ProtocolUDP})
			b.add(ep, exact, globs, r.Binaries == nil)
		}
	}
	return nil
}

// compileBinaries splits a rule's binaries into exact paths and globs, with
// their aliases added to the former.
func compileBinaries(r *Rule, o Options) (exact []string, globs []glob, err error) {
	for _, b := range r.Binaries {
		if strings.Contains(b.Path, "*") {
			g, err := compileGlob(b.Path, '/')
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

func compileEndpoint(r *rule, source *Endpoint, o Options) (*endpoint, error) {
	ep := &endpoint{
		rule:              r,
		kind:              source.kind(),
		tlsSkip:           source.TLS == TLSSkip,
		inspect:           inspected(source.Protocol),
		protocol:          source.Protocol,
		maxBody:           source.maxBody(),
		enforce:           source.Enforcement == EnforcementEnforce,
		allowEncodedSlash: source.AllowEncodedSlash,
	}
	for _, s := range source.AllowedIPs {
		prefix, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		ep.allowedIPs = append(ep.allowedIPs, prefix)
	}
	if host := canonicalHost(source.Host); !r.learned && slices.Contains(hostAliases, host) {
		ep.gateway = gatewayAddrs(o.HostAliases[host])
	}
	var err error
	if ep.path, err = compileEndpointPath(source.Path); err != nil {
		return nil, err
	}
	return ep, ep.compileRules(source)
}

// inspected reports whether a protocol is decided per request.
func inspected(protocol string) bool {
	switch protocol {
	case ProtocolREST, ProtocolWebSocket, ProtocolGraphQL, ProtocolJSONRPC, ProtocolMCP:
		return true
	}
	return false
}

func (ep *endpoint) compileRules(source *Endpoint) (err error) {
	allowed := source.allowed()
	switch source.Protocol {
	case ProtocolGraphQL:
		ep.graphql, err = compileGraphQL(source, allowed)
	case ProtocolJSONRPC, ProtocolMCP:
		ep.calls, err = compileCalls(source, allowed)
	case ProtocolWebSocket:
		isGraphQL := func(m L7Match) bool { return m.isGraphQL() }
		if source.hasGraphQLPolicy() {
			ep.graphql, err = compileGraphQL(source, allowed)
			if err != nil {
				return err
			}
		}
		if ep.allow, err = compileRequests(slices.DeleteFunc(slices.Clone(allowed), isGraphQL)); err != nil {
			return err
		}
		ep.deny, err = compileRequests(slices.DeleteFunc(slices.Clone(source.DenyRules), isGraphQL))
	case ProtocolREST:
		if ep.allow, err = compileRequests(allowed); err != nil {
			return err
		}
		ep.deny, err = compileRequests(source.DenyRules)
	}
	return err
}

// bucket returns the bucket for a host, which it indexes if it is new.
func (e *Engine) bucket(host string, s service) *bucket {
	host = canonicalHost(host)
	addr, literal := hostAddr(host)
	switch {
	case host == "":
		return bucketAt(e.hostless, s)
	case literal:
		return bucketAt(e.addrs, addrKey{ipaddr.Plain(addr), s})
	case !strings.Contains(host, "*"):
		e.knownNames[host] = true
		return bucketAt(e.names, nameKey{host, s})
	default:
		return bucketAt(e.wildcards.add(host).buckets, s)
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

func (b *bucket) add(ep *endpoint, exact []string, globs []glob, anyBinary bool) {
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
		b.globs.add(g.affix, binaryGlob{g, ep})
	}
}
