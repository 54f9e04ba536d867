package learn

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/audit"
	"openshell.ai/openshell/policy"
)

// endpointKey is which endpoint of a host and port something was missing from: one that the policy
// declares, or with an empty path the one for a host that it does not name.
type endpointKey struct{ protocol, path string }

// undeclared is the endpoint for requests that no endpoint of the policy is for.
var undeclared = endpointKey{protocol: policy.ProtocolREST}

func (k endpointKey) compare(o endpointKey) int {
	return cmp.Or(cmp.Compare(k.path, o.path), cmp.Compare(k.protocol, o.protocol))
}

// Bounds of what is learned for the declared endpoints of one host and port.
const (
	maxEndpoints  = 64
	maxCalls      = 512       // for an endpoint
	maxCallBytes  = 64 << 10  // their length together, as JSON
	maxCallLength = 4 << 10   // of one
	maxLiteral    = 256       // of a name within one
	wildcards     = `*?[]{}\` // what means something in a glob
)

// callSet is a bounded set of matches, other than by method and path: GraphQL operations, JSON-RPC
// methods, tools. The keys are the matches as JSON. When there are too many the
// smallest are kept, which do not depend on the order in which they came.
type callSet struct {
	calls map[string]policy.L7Match
	bytes int
	cut   bool // some were left out
}

func newCallSet() *callSet { return &callSet{calls: map[string]policy.L7Match{}} }

// add reports whether the set changed.
func (s *callSet) add(key string, m policy.L7Match) bool {
	if _, ok := s.calls[key]; ok {
		return false
	}
	s.calls[key] = m
	s.bytes += len(key)
	for len(s.calls) > maxCalls || s.bytes > maxCallBytes {
		greatest := slices.Max(slices.Collect(maps.Keys(s.calls)))
		delete(s.calls, greatest)
		s.bytes -= len(greatest)
		s.cut = true
		if greatest == key {
			return false
		}
	}
	return true
}

// callKey identifies a match. It is false for one that would match more than what it was made
// from, because a name in it means something in a glob, or that cannot be shown as it is.
func callKey(m policy.L7Match) (string, bool) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil || text.Len() > maxCallLength {
		return "", false
	}
	key := strings.TrimSpace(text.String())
	return key, key != "{}" && literalJSON(key)
}

// literalJSON reports whether every name in a match is short, printable and free of wildcards.
func literalJSON(text string) bool {
	dec := json.NewDecoder(strings.NewReader(text))
	for {
		token, err := dec.Token()
		if err != nil {
			return true // the end: it was written by the encoder
		}
		if s, ok := token.(string); ok && !literalName(s) {
			return false
		}
	}
}

func literalName(s string) bool {
	return s != "" && !strings.ContainsAny(s, wildcards+"\ufffd") && audit.Escape(s, maxLiteral) == s
}

// byMethodAndPath reports whether a protocol's rules are a method and a path each.
func byMethodAndPath(protocol string) bool {
	return protocol == policy.ProtocolREST || protocol == protocolWebSocket
}

const protocolWebSocket = "websocket"

// addMissing takes in what the rules of a declared endpoint lack for a request or a message. Where
// one part cannot be written as a rule, the rest would not help.
func (e *Evidence) addMissing(d Denial) {
	key := endpointKey{d.L7, d.EndpointPath}
	var requests []request
	calls := map[string]policy.L7Match{}
	for _, m := range d.Missing {
		if byMethodAndPath(d.L7) {
			path, ok := pattern(m.Path)
			if !ok || !isMethod(m.Method) {
				e.unspeakable = true
				return
			}
			requests = append(requests, request{m.Method, path})
			e.encodedSlash = e.encodedSlash || strings.Contains(m.Path, "%2F")
			continue
		}
		text, ok := callKey(m)
		if !ok {
			e.unspeakable = true
			return
		}
		calls[text] = m
	}
	for _, r := range requests {
		e.addRequestOf(key, r)
	}
	for _, text := range slices.Sorted(maps.Keys(calls)) {
		e.addCallOf(key, text, calls[text])
	}
}

// addRequestOf takes in a request to an endpoint; its path is a pattern.
func (e *Evidence) addRequestOf(key endpointKey, r request) {
	if set := e.requestsOf(key); set != nil && set.add(r.method, r.path) {
		e.size += len(r.method) + len(r.path) + mapEntry
	}
}

// requestsOf is nil where there are too many endpoints.
func (e *Evidence) requestsOf(key endpointKey) requests {
	set, ok := e.requests[key]
	switch {
	case ok:
	case len(e.requests) >= maxEndpoints:
		e.truncated = true
	default:
		set = requests{}
		e.requests[key] = set
	}
	return set
}

func (e *Evidence) addCallOf(key endpointKey, text string, m policy.L7Match) {
	set, ok := e.calls[key]
	if !ok {
		if len(e.calls) >= maxEndpoints {
			e.truncated = true
			return
		}
		set = newCallSet()
		e.calls[key] = set
	}
	if set.add(text, m) {
		e.size += 2*len(text) + mapEntry
	}
	e.truncated = e.truncated || set.cut
}

func (e *Evidence) mergeEndpoints(o *Evidence) {
	for key, set := range o.requests {
		if own := e.requestsOf(key); own != nil {
			own.merge(set)
		}
	}
	for key, set := range o.calls {
		for text, m := range set.calls {
			e.addCallOf(key, text, m)
		}
	}
}

// endpoints are those of the rule that are decided per request, in a fixed order.
func (e *Evidence) endpoints() []policy.Endpoint {
	rules := map[endpointKey][]policy.L7Allow{}
	for key, set := range e.requests {
		rules[key] = allows(set)
	}
	for key, set := range e.calls {
		for _, text := range slices.Sorted(maps.Keys(set.calls)) {
			rules[key] = append(rules[key], policy.L7Allow{Allow: set.calls[text]})
		}
	}
	var list []policy.Endpoint
	for _, key := range slices.SortedFunc(maps.Keys(rules), endpointKey.compare) {
		list = append(list, policy.Endpoint{
			Host: e.target.host, Ports: []uint16{e.target.port}, Path: key.path,
			Protocol: key.protocol, Enforcement: policy.EnforcementEnforce, Rules: rules[key],
			AllowEncodedSlash: e.encodedSlash && byMethodAndPath(key.protocol),
		})
	}
	return list
}

// declared reports whether something was missing from an endpoint that the policy declares. There
// every connection is looked into, whatever a learned rule says.
func (e *Evidence) declared() bool {
	for key := range e.requests {
		if key != undeclared {
			return true
		}
	}
	return len(e.calls) > 0
}

// restore takes an endpoint of the proposal's own rule back in.
func (e *Evidence) restore(endpoint *policy.Endpoint) {
	key := endpointKey{endpoint.Protocol, endpoint.Path}
	for _, r := range endpoint.Rules {
		if byMethodAndPath(key.protocol) {
			e.addRequestOf(key, request{r.Allow.Method, r.Allow.Path})
		} else if text, ok := callKey(r.Allow); ok {
			e.addCallOf(key, text, r.Allow)
		}
	}
	e.encodedSlash = e.encodedSlash || endpoint.AllowEncodedSlash
}
