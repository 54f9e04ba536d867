// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/url"

	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// requestSet is a compiled list of matches, indexed so that thousands of learned
// paths do not slow a request down.
type requestSet struct {
	exact map[string][]*requestMatch // by the whole path
	globs wildcard.AffixIndex[*requestMatch]
}

type requestMatch struct {
	method string
	path   wildcard.Glob
	query  map[string][]wildcard.Glob
	// upgrades are what a request may ask to switch to.
	upgrades []string
}

func compileRequests(matches []policy.L7Match) (requestSet, error) {
	var set requestSet
	for _, source := range matches {
		if source.Path == "" {
			continue // it is on content
		}
		compiled, err := compileRequest(source)
		if err != nil {
			return set, err
		}
		if !compiled.path.IsLiteral() {
			set.globs.Add(compiled.path.Affix, compiled)
			continue
		}
		if set.exact == nil {
			set.exact = map[string][]*requestMatch{}
		}
		set.exact[source.Path] = append(set.exact[source.Path], compiled)
	}
	return set, nil
}

func compileRequest(source policy.L7Match) (*requestMatch, error) {
	path, err := wildcard.CompileGlob(source.Path, '/')
	if err != nil {
		return nil, err
	}
	compiled := &requestMatch{method: source.Method, path: path, upgrades: source.Upgrade}
	if len(source.Query) > 0 {
		compiled.query = make(map[string][]wildcard.Glob, len(source.Query))
	}
	for key, matcher := range source.Query {
		if compiled.query[key], err = wildcard.CompileGlobs(matcher.Any); err != nil {
			return nil, err
		}
	}
	return compiled, nil
}

// quantifier says how a query parameter given several times is matched.
type quantifier int

const (
	allValues quantifier = iota // to allow, every value must match
	anyValue                    // to deny, one is enough
)

func (s *requestSet) match(r *Request, method string, q *parsedQuery, values quantifier) bool {
	for _, m := range s.exact[r.Path] {
		if m.match(r, method, q, values) {
			return true
		}
	}
	return s.globs.Any(r.Path, func(m *requestMatch) bool { return m.match(r, method, q, values) })
}

func (m *requestMatch) match(r *Request, method string, q *parsedQuery, values quantifier) bool {
	return policy.MethodMatches(m.method, method) && m.path.Match(r.Path) && m.queryMatches(q, values) &&
		(values == anyValue || policy.UpgradesWithin(r.Upgrades, m.upgrades))
}

func (m *requestMatch) queryMatches(q *parsedQuery, values quantifier) bool {
	if len(m.query) == 0 {
		return true
	}
	params, ok := q.parse()
	if !ok {
		// What cannot be read is not allowed, and may be what is denied.
		return values == anyValue
	}
	for key, globs := range m.query {
		if !valuesMatch(globs, params[key], values) {
			return false
		}
	}
	return true
}

func valuesMatch(globs []wildcard.Glob, given []string, values quantifier) bool {
	for _, value := range given {
		matched := wildcard.AnyMatches(globs, value)
		if matched == (values == anyValue) {
			return matched
		}
	}
	return len(given) > 0 && values == allValues
}

// parsedQuery parses a query string when the first rule asks for it.
type parsedQuery struct {
	raw    string
	params url.Values
	err    error
}

// parse returns the decoded parameters. A query with a bad escape or a ';',
// which servers read differently, is not readable.
func (q *parsedQuery) parse() (url.Values, bool) {
	if q.params == nil {
		q.params, q.err = url.ParseQuery(q.raw)
	}
	return q.params, q.err == nil
}
