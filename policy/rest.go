// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy/httptarget"
)

// rest is HTTP, decided by method, path and query.
var rest = Protocol{
	Name: ProtocolREST,
	Rank: 1,
	HTTP: true,
	fields: []matchField{{
		name:    "method",
		present: func(m *L7Match) bool { return m.Method != "" },
		refused: "is not a field of %s rules",
		decode:  func(d *decoder, to *L7Match) field { return d.text(&to.Method) },
		words:   func(m *L7Match) string { return m.Method },
	}, {
		name:    "path",
		present: func(m *L7Match) bool { return m.Path != "" },
		refused: "%s L7 rules must not use path/query",
		decode:  func(d *decoder, to *L7Match) field { return d.text(&to.Path) },
	}, {
		name:    "query",
		present: func(m *L7Match) bool { return m.Query != nil },
		refused: "%s L7 rules must not use path/query",
		decode:  func(d *decoder, to *L7Match) field { return d.matchers(&to.Query) },
	}, upgradeField},
	presets:      restPresets,
	canonicalize: (*Endpoint).canonicalizeRules,
	checkMatch: func(v *validator, path string, _ *Endpoint, m *L7Match) {
		v.request(path, m)
		v.upgrade(path+".upgrade", m.Upgrade)
	},
}

// restPresets are what the access values stand for. DELETE is not part of read-write.
var restPresets = map[string][]L7Match{
	AccessReadOnly:  methods("GET", "HEAD", "OPTIONS"),
	AccessReadWrite: methods("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"),
	AccessFull:      methods("*"),
}

func methods(names ...string) []L7Match {
	matches := make([]L7Match, len(names))
	for i, name := range names {
		matches[i] = L7Match{Method: name, Path: "**"}
	}
	return matches
}

// MethodMatches lets GET cover HEAD, which differs only in having no response
// body (RFC 9110 section 9.3.2).
func MethodMatches(want, method string) bool {
	return want == "*" || strings.EqualFold(want, method) ||
		strings.EqualFold(want, "GET") && strings.EqualFold(method, "HEAD")
}

func (d *decoder) matchers(to *map[string]Matcher) field {
	return func(n *yaml.Node, path string) {
		matchers := map[string]Matcher{}
		d.entries(n, path, func(key, value *yaml.Node, at string) {
			matchers[key.Value] = d.matcher(value, at)
		})
		if len(matchers) > 0 {
			*to = matchers
		}
	}
}

// request checks a match on method, path and query.
func (v *validator) request(path string, m *L7Match) {
	switch {
	case m.Method == "":
		v.problem(path+".method", "is required: name an HTTP method, or '*' for any")
	case m.Method == "*":
	case strings.Trim(m.Method, methodChars) != "":
		v.problem(path+".method", "%s is not an HTTP method", printable.Text(m.Method))
	}
	v.requestPath(path+".path", m.Path)
	for _, key := range slices.Sorted(maps.Keys(m.Query)) {
		at := Child(path+".query", key)
		v.plainText(at, key, maxNameBytes)
		v.matcher(at, m.Query[key])
	}
}

// methodChars are what registered methods are made of (RFC 9110 section 9.1
// allows more, which nothing uses).
const methodChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"

func (v *validator) requestPath(path, pattern string) {
	switch {
	case pattern == "":
		v.problem(path, "is required: start it with '/', or use '**' for any")
	case !v.plainText(path, pattern, maxPathBytes):
	case pattern == `\*`: // the asterisk of "OPTIONS *"
		v.warn(path, "%s names the server as a whole, "+inOpenShell, pattern)
	case !strings.HasPrefix(pattern, "/") && pattern != "**":
		v.problem(path, "path must start with '/' or be '**'")
	case strings.Contains(pattern, "?"):
		v.glob(path, pattern, '/')
		v.warn(path, "'?' stands for one character: the query is not part of the path, use query for it")
	case wildcard.IsGlob(pattern):
		v.glob(path, pattern, '/')
	default:
		if target, err := httptarget.Parse("GET", pattern); err != nil {
			v.warn(path, "never matches: %v", err)
		} else if target.Path() != pattern {
			v.warn(path, "never matches: paths are compared in one spelling, write %s", target.Path())
		}
	}
}

// canonicalizeRules writes HTTP's rules in one way, and as a preset where there
// is one.
func (e *Endpoint) canonicalizeRules() {
	allowed := canonicalMatches(slices.Clone(e.Allowed()))
	e.Access = ""
	for access, preset := range restPresets {
		if reflect.DeepEqual(allowed, canonicalMatches(slices.Clone(preset))) {
			e.Access = access
		}
	}
	e.Rules = nil
	for _, m := range allowed {
		if e.Access == "" {
			e.Rules = append(e.Rules, L7Allow{m})
		}
	}
	e.DenyRules = canonicalMatches(e.DenyRules)
}

func canonicalMatches(matches []L7Match) []L7Match {
	for i := range matches {
		m := &matches[i]
		m.Method = strings.ToUpper(m.Method)
		if m.Path == "/**" {
			m.Path = "**"
		}
		for key, matcher := range m.Query {
			m.Query[key] = Matcher{sortedSet(matcher.Any)}
		}
		if m.Upgrade != nil {
			m.Upgrade = sortedSet(m.Upgrade)
		}
	}
	matches = sortedByText(matches)
	gets := map[string]bool{}
	for _, m := range matches {
		if m.Method == "GET" {
			m.Method = "HEAD"
			gets[jsonText(m)] = true
		}
	}
	// GET covers HEAD.
	return slices.DeleteFunc(matches, func(m L7Match) bool { return gets[jsonText(m)] })
}
