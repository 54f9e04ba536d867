// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/httptarget"
)

// otherReadings are the request as other servers would read its target.
func (r *Request) otherReadings() iter.Seq[Request] {
	return func(yield func(Request) bool) {
		for _, other := range r.Target.Others() {
			one := *r
			one.Path, one.Target = other.Path, httptarget.Target{}
			if !yield(one) {
				return
			}
		}
	}
}

// ofReadings is the verdict on a request whose target may have more than one reading:
// the strictest. What rules lack is what they lack for
// any reading, since only all together help. With a message it is that on a message on
// the WebSocket that the request opened.
func (m *Match) ofReadings(r Request, message *[]byte) Verdict {
	method, decide := r.Method, m.request
	if message != nil {
		method, decide = policy.MethodWebSocketText, func(one *Request) Verdict { return m.text(one, *message) }
	}
	v := decide(&r)
	switch {
	case len(r.Target.Others()) == 0:
		return v
	case !m.Allowed:
		v.Missing = r.matches(method)
		return v
	case !m.Inspect:
		return v
	}
	inSegment := m.keepsEncodedSlash(r.Path)
	i := 0
	for one := range r.otherReadings() {
		slash := r.Target.Others()[i].Slash
		i++
		if slash && inSegment {
			// The endpoint says that its server takes it for none. A deny rule wins over
			// that as over all else.
			if c := m.cover(&one, method); c.denied {
				v = v.with(c.refuse(one.reason(method, "blocked by deny rule")))
			}
			continue
		}
		v = v.with(decide(&one))
	}
	if v.Decision != Allow && v.Protocol == "" { // no endpoint covers it
		v.Missing = r.matches(method)
	}
	return v
}

// keepsEncodedSlash reports whether an endpoint that covers a path has
// allow_encoded_slash.
func (m *Match) keepsEncodedSlash(path string) bool {
	for ep := range m.covering(path) {
		if ep.allowEncodedSlash {
			return true
		}
	}
	return false
}

// with joins the verdict on another reading of the same request.
func (v Verdict) with(other Verdict) Verdict {
	if other.Decision == Allow && !other.Malformed {
		return v
	}
	if v.Decision == Allow && !v.Malformed {
		return other
	}
	strict, lax := v, other
	if lax.strictness() > strict.strictness() {
		strict, lax = lax, strict
	}
	switch same := strict.Protocol == lax.Protocol && strict.Path == lax.Path; {
	case strict.hopeless() || lax.hopeless():
		strict.Missing = nil
	case same:
		strict.Missing = distinct(append(strict.Missing[:len(strict.Missing):len(strict.Missing)], lax.Missing...))
		strict.Missing = strict.Missing[:min(len(strict.Missing), maxMissing)]
	}
	return strict
}

// strictness orders verdicts that do not allow a request.
func (v *Verdict) strictness() int {
	switch {
	case v.Malformed:
		return 4
	case v.Decision == Deny && v.hopeless():
		return 3
	case v.Decision == Deny:
		return 2
	case v.hopeless():
		return 1
	}
	return 0
}

// hopeless reports whether no further rule of the endpoint that decided would
// allow the request.
func (v *Verdict) hopeless() bool { return v.Protocol != "" && len(v.Missing) == 0 }

// Matches are what rules would have to allow for a request of which nothing is known but that it is HTTP: a
// match for each reading of its target.
func (r *Request) Matches() []policy.L7Match { return r.matches(r.Method) }

func (r *Request) matches(method string) []policy.L7Match {
	var all []policy.L7Match
	for _, path := range r.Target.Readings() {
		all = append(all, policy.L7Match{Method: strings.ToUpper(method), Path: wildcard.EscapeGlob(path),
			Upgrade: r.Upgrades})
	}
	slices.SortFunc(all, func(a, b policy.L7Match) int { return cmp.Compare(a.Path, b.Path) }) // as what is learned
	return all
}
