// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/learn/paths"
	"openshell.ai/openshell/policy"
)

// endpointKey is which endpoint of a host and port something was missing from: one that the policy
// declares, or with an empty path the one for a host that it does not name. Requests that ask to switch to other
// protocols are apart: upgrade has their names, between commas.
type endpointKey struct{ protocol, path, upgrade string }

// undeclared is the endpoint for requests that no endpoint of the policy is for.
var undeclared = endpointKey{protocol: policy.ProtocolREST}

func (k endpointKey) compare(o endpointKey) int {
	return cmp.Or(cmp.Compare(k.path, o.path), cmp.Compare(k.protocol, o.protocol), cmp.Compare(k.upgrade, o.upgrade))
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

func (s *callSet) add(key string, m policy.L7Match) {
	if _, ok := s.calls[key]; ok {
		return
	}
	s.calls[key] = m
	s.bytes += len(key)
	for len(s.calls) > maxCalls || s.bytes > maxCallBytes {
		greatest := greatestKey(s.calls, cmp.Compare)
		delete(s.calls, greatest)
		s.bytes -= len(greatest)
		s.cut = true
	}
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

// addMissing takes in what the rules of a declared endpoint lack for a request or a message. Where
// one part cannot be written as a rule, the rest would not help.
func (e *Evidence) addMissing(d Denial) {
	calls := map[string]policy.L7Match{}
	for _, m := range d.Missing {
		if m.Path != "" {
			if !expressibleRequest(m.Method, literalPath(m.Path)) {
				e.inexpressible = true
				return
			}
			continue
		}
		text, ok := callKey(m)
		if !ok {
			e.inexpressible = true
			return
		}
		calls[text] = m
	}
	key := endpointKey{protocol: d.L7, path: d.EndpointPath}
	for _, m := range d.Missing {
		if m.Path != "" {
			e.addMatch(key, m.Method, m)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(calls)) {
		e.addCallOf(key, text, calls[text])
	}
}

// literalPath is the path that a pattern which matches it alone was made from: a path in a rule's
// spelling has no backslash of its own.
func literalPath(pattern string) string { return strings.ReplaceAll(pattern, `\`, "") }

// expressibleRequest reports whether a rule can name a request.
func expressibleRequest(method, path string) bool {
	var probe paths.Set
	return isMethod(method) && probe.Add(method, path)
}

// addMatch takes in a request to an endpoint, as a match of it alone.
func (e *Evidence) addMatch(key endpointKey, method string, m policy.L7Match) {
	if slices.ContainsFunc(m.Upgrade, func(name string) bool { return !policy.ValidUpgrade(name) }) ||
		len(m.Upgrade) > maxUpgrades {
		e.inexpressible = true
		return
	}
	key.upgrade = strings.Join(m.Upgrade, ",")
	e.addRequestOf(key, method, literalPath(m.Path))
}

// maxUpgrades bounds how many protocols one request may offer.
const maxUpgrades = 4

// addRequestOf takes in a request to an endpoint.
func (e *Evidence) addRequestOf(key endpointKey, method, path string) {
	set := e.requestsOf(key)
	if set == nil {
		return
	}
	if !isMethod(method) || !set.Add(method, path) {
		e.inexpressible = true
		return
	}
}

// requestsOf is nil where there are too many endpoints.
func (e *Evidence) requestsOf(key endpointKey) *paths.Set {
	set, ok := e.requests[key]
	if ok {
		return set
	}
	if len(e.requests) >= maxEndpoints {
		e.truncated = true
		return nil
	}
	set = &paths.Set{}
	e.requests[key] = set
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
	set.add(text, m)
	e.truncated = e.truncated || set.cut
}

func (e *Evidence) mergeEndpoints(o *Evidence) {
	for _, key := range slices.SortedFunc(maps.Keys(o.requests), endpointKey.compare) {
		e.mergeRequests(key, o.requests[key])
	}
	for key, set := range o.calls {
		for text, m := range set.calls {
			e.addCallOf(key, text, m)
		}
	}
}

func (e *Evidence) mergeRequests(key endpointKey, set *paths.Set) {
	if own := e.requestsOf(key); own != nil {
		own.Merge(set)
	}
}

// callsOf are the calls of an endpoint, in a fixed order.
func (e *Evidence) callsOf(key endpointKey) []policy.L7Allow {
	set := e.calls[key]
	if set == nil {
		return nil
	}
	var rules []policy.L7Allow
	for _, text := range slices.Sorted(maps.Keys(set.calls)) {
		rules = append(rules, policy.L7Allow{Allow: set.calls[text]})
	}
	return rules
}

// content is what the rule has to allow, in a fixed order.
func (e *Evidence) content() []policy.Content {
	var list []policy.Content
	for _, seen := range e.stored() {
		c := policy.Content{Protocol: seen.Protocol, Path: seen.Path}
		if seen.Requests != nil {
			for _, t := range seen.Requests.Templates() {
				c.Allow = append(c.Allow, policy.L7Match{Method: t.Method, Path: t.Path, Upgrade: seen.Upgrade})
			}
		}
		for _, call := range seen.Calls {
			c.Allow = append(c.Allow, call.Allow)
		}
		if n := len(list); n > 0 && list[n-1].Path == c.Path && list[n-1].Protocol == c.Protocol {
			list[n-1].Allow = append(list[n-1].Allow, c.Allow...) // they differ in the upgrade
			continue
		}
		if len(c.Allow) > 0 {
			list = append(list, c)
		}
	}
	return list
}

// declared reports whether something was missing from an endpoint that the policy declares. There
// every connection is looked into, whatever a learned rule says.
func (e *Evidence) declared() bool {
	for key := range e.requests {
		if key.upgrade = ""; key != undeclared {
			return true
		}
	}
	return len(e.calls) > 0
}

// EndpointRequests is what was seen of one endpoint of a proposal's host and port, kept so that the rule
// can be made anew from all of it.
type EndpointRequests struct {
	Protocol string           `json:"protocol"`
	Path     string           `json:"path,omitempty"`    // the endpoint's
	Upgrade  []string         `json:"upgrade,omitempty"` // what the requests asked to switch to
	Requests *paths.Set       `json:"requests,omitempty"`
	Calls    []policy.L7Allow `json:"calls,omitempty"`
}

// stored is what restore takes in again.
func (e *Evidence) stored() []EndpointRequests {
	keys := map[endpointKey]bool{}
	for key := range e.requests {
		keys[key] = true
	}
	for key := range e.calls {
		keys[key] = true
	}
	var list []EndpointRequests
	for _, key := range slices.SortedFunc(maps.Keys(keys), endpointKey.compare) {
		seen := EndpointRequests{Protocol: key.protocol, Path: key.path, Requests: e.requests[key], Calls: e.callsOf(key)}
		if key.upgrade != "" {
			seen.Upgrade = strings.Split(key.upgrade, ",")
		}
		list = append(list, seen)
	}
	return list
}

func (e *Evidence) restore(stored []EndpointRequests) {
	for _, s := range stored {
		key := endpointKey{s.Protocol, s.Path, strings.Join(s.Upgrade, ",")}
		if s.Requests != nil {
			e.mergeRequests(key, s.Requests)
		}
		for _, r := range s.Calls {
			if text, ok := callKey(r.Allow); ok {
				e.addCallOf(key, text, r.Allow)
			}
		}
	}
}
