// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

var graphql = inspector{
	rules:   compileGraphQL,
	sees:    func(_ coverage, r Request) (body, text bool) { return strings.EqualFold(r.Method, "POST"), true },
	request: func(m Match, c coverage, r Request) Verdict { return m.decideGraphQL(&c, &r) },
	message: func(m Match, c coverage, r Request, message []byte) Verdict {
		return m.operationsMessage(&c, &r, message)
	},
}

// graphqlRules are an endpoint's rules on operations.
type graphqlRules struct {
	allow, deny operationSet
	registry    map[string]operation // by hash or id; nil unless it may be used
}

// operationSet is a compiled list of matches, indexed by what most name.
type operationSet struct {
	byName  wildcard.AffixIndex[*operationMatch]
	byField wildcard.AffixIndex[*operationMatch] // those without a name
	others  []*operationMatch                    // those without a name and fields
}

type operationMatch struct {
	kind   string          // or `*`
	name   *wildcard.Glob  // nil: any, or none
	fields []wildcard.Glob // nil: any
}

func compileGraphQL(source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error) {
	rules := &graphqlRules{}
	for i := range allowed {
		if err := rules.allow.add(&allowed[i]); err != nil {
			return nil, err
		}
	}
	for i := range source.DenyRules {
		if err := rules.deny.add(&source.DenyRules[i]); err != nil {
			return nil, err
		}
	}
	if source.PersistedQueries != policy.PersistedQueriesAllowRegistered {
		return rules, nil
	}
	rules.registry = make(map[string]operation, len(source.GraphQLPersistedQueries))
	for key, o := range source.GraphQLPersistedQueries {
		rules.registry[key] = operation{
			kind:   strings.ToLower(o.OperationType),
			name:   o.OperationName,
			fields: slices.Compact(slices.Sorted(slices.Values(o.Fields))),
		}
	}
	return rules, nil
}

// add compiles a match; one that is not on operations is left out.
func (s *operationSet) add(source *policy.L7Match) error {
	if !source.IsGraphQL() {
		return nil
	}
	m := &operationMatch{kind: strings.ToLower(source.OperationType)}
	if source.OperationName != "" {
		name, err := wildcard.CompileGlob(source.OperationName, '.')
		if err != nil {
			return err
		}
		m.name = &name
	}
	var err error
	if len(source.Fields) > 0 {
		if m.fields, err = wildcard.CompileGlobs(source.Fields); err != nil {
			return err
		}
	}
	switch {
	case m.name != nil:
		s.byName.Add(m.name.Affix, m)
	case len(m.fields) > 0:
		for i := range m.fields {
			s.byField.Add(m.fields[i].Affix, m)
		}
	default:
		s.others = append(s.others, m)
	}
	return nil
}

// match reports whether a match is on the operation. To allow it, a match has
// to cover all its root fields, to deny it, one.
func (s *operationSet) match(o *operation, values quantifier) bool {
	matches := func(m *operationMatch) bool { return m.match(o, values) }
	if slices.ContainsFunc(s.others, matches) || s.byName.Any(o.name, matches) {
		return true
	}
	for _, field := range o.fields {
		if s.byField.Any(field, matches) {
			return true
		}
		if values == allValues {
			break // a match that covers all fields covers the first
		}
	}
	return false
}

func (m *operationMatch) match(o *operation, values quantifier) bool {
	if m.kind != "*" && m.kind != o.kind || m.name != nil && !m.name.Match(o.name) {
		return false
	}
	return len(m.fields) == 0 || valuesMatch(m.fields, o.fields, values)
}

// decideGraphQL decides a request by its operations. What the covering GraphQL
// endpoints do not allow, a broader REST rule does not allow either.
func (m *Match) decideGraphQL(c *coverage, r *Request) Verdict {
	switch {
	case r.Upgrade && strings.EqualFold(r.Method, "GET") && r.opensWithoutOperation():
		return m.decideOperations(c, r, nil)
	case strings.EqualFold(r.Method, "POST") && r.Body == nil:
		return c.unseen()
	}
	operations, err := requestOperations(r)
	if err != nil {
		return c.malformed("GraphQL request rejected: " + err.Error())
	}
	return m.decideOperations(c, r, operations)
}

// opensWithoutOperation reports whether a request's query string names no
// operation, as that of a WebSocket does.
func (r *Request) opensWithoutOperation() bool {
	q := parsedQuery{raw: r.RawQuery}
	params, ok := q.parse()
	for key := range params {
		ok = ok && !slices.ContainsFunc(graphqlKeys, func(name string) bool { return strings.EqualFold(key, name) })
	}
	return ok && len(r.Body) == 0
}

// operationsMessage decides a message of GraphQL over WebSocket.
func (m *Match) operationsMessage(c *coverage, r *Request, message []byte) Verdict {
	operations, err := messageOperations(message)
	if err != nil {
		return c.malformed("GraphQL WebSocket message rejected: " + err.Error())
	}
	return m.decideOperations(c, r, operations)
}

func (m *Match) decideOperations(c *coverage, r *Request, operations []operation) Verdict {
	if c.denied {
		return c.refuse(r.reason(r.Method, "blocked by deny rule"))
	}
	var missing []policy.L7Match
	first := "" // what is missing, described
	for _, o := range operations {
		known, allowed, denied := o.persisted == "", false, false
		for ep := range m.covering(r.Path) {
			rules, ok := ep.content.(*graphqlRules)
			if !ok {
				continue
			}
			if o.persisted != "" {
				registered, ok := rules.registry[o.persisted]
				if !ok {
					continue
				}
				registered.persisted = o.persisted
				known, o = true, registered
			}
			allowed = allowed || rules.allow.match(&o, allValues)
			denied = denied || rules.deny.match(&o, anyValue)
		}
		switch {
		case !known:
			return c.refuse("GraphQL persisted query is not registered")
		case denied:
			return c.refuse("GraphQL operation blocked by endpoint policy: " + o.describe())
		case !allowed:
			missing = append(missing, o.asMatch())
			first = cmp.Or(first, o.describe())
		}
	}
	if len(missing) > 0 {
		return c.refuse("GraphQL operation not permitted by policy: "+first, missing...)
	}
	return c.allow()
}

func (o *operation) asMatch() policy.L7Match {
	m := policy.L7Match{OperationType: o.kind, OperationName: wildcard.EscapeGlob(o.name)}
	for _, field := range o.fields {
		m.Fields = append(m.Fields, wildcard.EscapeGlob(field))
	}
	return m
}

// describe names an operation in a reason.
func (o *operation) describe() string {
	text := o.kind
	if o.name != "" {
		text += " " + o.name
	}
	return printable.Brief(fmt.Sprintf("%s { %s }", text, strings.Join(o.fields, " ")))
}
