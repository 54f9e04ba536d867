// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/url"
	"strings"
)

// presets are what the access values stand for in rest. DELETE is not part of
// read-write.
var presets = map[string][]L7Match{
	AccessReadOnly:  methods("GET", "HEAD", "OPTIONS"),
	AccessReadWrite: methods("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"),
	AccessFull:      methods("*"),
}

var websocketPresets = map[string][]L7Match{
	AccessReadOnly:  methods("GET"),
	AccessReadWrite: methods("GET", methodWebSocketText),
	AccessFull:      methods("*"),
}

var graphqlPresets = map[string][]L7Match{
	AccessReadOnly:  {{OperationType: "query"}},
	AccessReadWrite: {{OperationType: "query"}, {OperationType: "mutation"}},
	AccessFull:      {{OperationType: "*"}},
}

// allowed returns what an inspected endpoint allows: its rules, or what its
// access stands for.
func (e *Endpoint) allowed() []L7Match {
	switch {
	case e.Access != "" && e.Protocol == ProtocolGraphQL:
		return graphqlPresets[e.Access]
	case e.Access != "" && e.Protocol == ProtocolWebSocket:
		return websocketPresets[e.Access]
	case e.Access != "":
		return presets[e.Access]
	}
	allowed := make([]L7Match, len(e.Rules))
	for i := range e.Rules {
		allowed[i] = e.Rules[i].Allow
	}
	return allowed
}

func methods(names ...string) []L7Match {
	matches := make([]L7Match, len(names))
	for i, name := range names {
		matches[i] = L7Match{Method: name, Path: "**"}
	}
	return matches
}

// requestSet is a compiled list of matches, indexed so that thousands of learned
// paths do not slow a request down.
type requestSet struct {
	exact map[string][]*requestMatch // by the whole path
	globs affixIndex[*requestMatch]
}

type requestMatch struct {
	method string
	path   glob
	query  map[string][]glob
}

func compileRequests(matches []L7Match) (requestSet, error) {
	var set requestSet
	for _, source := range matches {
		compiled, err := compileRequest(source)
		if err != nil {
			return set, err
		}
		if compiled.path.expr != nil {
			set.globs.add(compiled.path.affix, compiled)
			continue
		}
		if set.exact == nil {
			set.exact = map[string][]*requestMatch{}
		}
		set.exact[source.Path] = append(set.exact[source.Path], compiled)
	}
	return set, nil
}

func compileRequest(source L7Match) (*requestMatch, error) {
	path, err := compileGlob(source.Path, '/')
	if err != nil {
		return nil, err
	}
	compiled := &requestMatch{method: source.Method, path: path}
	if len(source.Query) > 0 {
		compiled.query = make(map[string][]glob, len(source.Query))
	}
	for key, matcher := range source.Query {
		if compiled.query[key], err = compileGlobs(matcher.Any); err != nil {
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
	return s.globs.any(r.Path, func(m *requestMatch) bool { return m.match(r, method, q, values) })
}

func (m *requestMatch) match(r *Request, method string, q *parsedQuery, values quantifier) bool {
	return methodMatches(m.method, method) && m.path.match(r.Path) && m.queryMatches(q, values)
}

// methodMatches lets GET cover HEAD, which differs only in having no response
// body (RFC 9110 section 9.3.2).
func methodMatches(want, method string) bool {
	return want == "*" || strings.EqualFold(want, method) ||
		strings.EqualFold(want, "GET") && strings.EqualFold(method, "HEAD")
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

func valuesMatch(globs []glob, given []string, values quantifier) bool {
	for _, value := range given {
		matched := anyMatches(globs, value)
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
