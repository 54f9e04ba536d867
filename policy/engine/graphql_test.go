// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

// post is a request with a JSON body.
func post(path, body string) Request {
	return Request{Method: "POST", Path: path, Body: []byte(body), ContentType: "application/json"}
}

type contentCase struct {
	name    string
	request Request
	want    Decision
	reason  string // its start
	missing []policy.L7Match
}

func checkContent(t *testing.T, m Match, cases []contentCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Helper()
			checkVerdict(t, m.Request(tt.request), tt)
		})
	}
}

func checkVerdict(t *testing.T, v Verdict, tt contentCase) {
	t.Helper()
	if v.Decision != tt.want || !strings.HasPrefix(v.Reason, tt.reason) || (v.Reason == "") != (tt.reason == "") {
		t.Errorf("%v (%s), want %v (%s)", v.Decision, v.Reason, tt.want, tt.reason)
	}
	if !reflect.DeepEqual(v.Missing, tt.missing) {
		t.Errorf("missing %+v, want %+v", v.Missing, tt.missing)
	}
	if v.Malformed && v.Decision != Deny {
		t.Errorf("malformed, but %v", v.Decision)
	}
}

// envelope is a GraphQL request's JSON.
func envelope(query string) string { return fmt.Sprintf(`{"query":%q}`, query) }

const graphqlRule = `
api:
  endpoints:
    - host: h.example
      port: 443
      path: /graphql
      protocol: graphql
      enforcement: enforce
      rules:
        - allow: { operation_type: query, fields: [viewer, repo*] }
        - allow: { operation_type: mutation, operation_name: "Issue*", fields: [createIssue, closeIssue] }
        - allow: { operation_type: SUBSCRIPTION }
      deny_rules:
        - { operation_type: "*", fields: [repositoryOwner] }
        - { operation_type: subscription, operation_name: Spy }
    - { host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full, deny_rules: [{ method: POST, path: /graphql, query: { debug: "*" } }] }
`

func TestGraphQL(t *testing.T) {
	m := connect(t, engine(t, graphqlRule))
	const notPermitted, blocked, rejected = "GraphQL operation not permitted by policy: ", "GraphQL operation blocked by endpoint policy: ", "GraphQL request rejected: "
	request := func(query string) Request { return post("/graphql", envelope(query)) }
	missing := func(kind, name string, fields ...string) []policy.L7Match {
		return []policy.L7Match{{OperationType: kind, OperationName: name, Fields: fields}}
	}
	checkContent(t, m, []contentCase{
		{"query", request("{ viewer { login } }"), Allow, "", nil},
		{"query by glob", request("query Q { repositories { id } viewer { id } }"), Allow, "", nil},
		{"every field must match", request("{ viewer { id } secrets }"), Deny, notPermitted + "query { secrets viewer }", missing("query", "", "secrets", "viewer")},
		{"alias", request("{ viewer: secrets }"), Deny, notPermitted, missing("query", "", "secrets")},
		{"introspection is a field", request("{ __schema { types { name } } }"), Deny, notPermitted, missing("query", "", "__schema")},
		{"skipped field", request("{ viewer secrets @skip(if: true) }"), Deny, notPermitted, missing("query", "", "secrets", "viewer")},
		{"fragment", request("{ ...F } fragment F on Query { ... on Query { ...G } } fragment G on Query { secrets }"), Deny, notPermitted, missing("query", "", "secrets")},
		{"nested fields decide nothing", request("{ viewer { secrets } }"), Allow, "", nil},
		{"mutation by name", request("mutation IssueNew { createIssue { id } }"), Allow, "", nil},
		{"mutation by another name", request("mutation New { createIssue { id } }"), Deny, notPermitted + "mutation New { createIssue }", missing("mutation", "New", "createIssue")},
		{"nameless mutation", request("mutation { createIssue { id } }"), Deny, notPermitted, missing("mutation", "", "createIssue")},
		{"any subscription", request("subscription S { anything }"), Allow, "", nil},
		{"denied field", request("{ viewer repositoryOwner }"), Deny, blocked, nil},
		{"denied name", request("subscription Spy { x }"), Deny, blocked, nil},
		{"operationName selects", post("/graphql", `{"query":"query A { viewer } mutation B { wipe }","operationName":"A"}`), Allow, "", nil},
		{"operationName selects the other", post("/graphql", `{"query":"query A { viewer } mutation B { wipe }","operationName":"B"}`), Deny, notPermitted, missing("mutation", "B", "wipe")},
		{"batch", post("/graphql", "["+envelope("{ viewer }")+","+envelope("{ repos }")+"]"), Allow, "", nil},
		{"one of a batch", post("/graphql", "["+envelope("{ viewer }")+","+envelope("{ a }")+","+envelope("{ a }")+","+envelope("{ b }")+"]"), Deny, notPermitted + "query { a }",
			append(missing("query", "", "a"), missing("query", "", "b")...)},
		{"GET", Request{Method: "GET", Path: "/graphql", RawQuery: "query=" + url.QueryEscape("{ viewer }")}, Allow, "", nil},
		{"GET that is not allowed", Request{Method: "GET", Path: "/graphql", RawQuery: "query=%7Bsecrets%7D"}, Deny, notPermitted, missing("query", "", "secrets")},
		{"application/graphql", Request{Method: "POST", Path: "/graphql", Body: []byte("{ viewer }"), ContentType: "application/graphql; charset=utf-8"}, Allow, "", nil},
		{"body not seen", Request{Method: "POST", Path: "/graphql", ContentType: "application/json"}, Deny, "protocol graphql decides by the body, which was not seen", nil},
		{"rest deny rule", Request{Method: "POST", Path: "/graphql", RawQuery: "debug=1", Body: []byte(envelope("{ viewer }")), ContentType: "application/json"}, Deny, "POST /graphql blocked by deny rule", nil},
		{"another path is REST", Request{Method: "DELETE", Path: "/x"}, Allow, "", nil},
		{"an upgrade", Request{Method: "GET", Path: "/graphql", Upgrade: true}, Allow, "", nil},
		{"an upgrade that executes", Request{Method: "GET", Path: "/graphql", Upgrade: true, RawQuery: "query=%7Bsecrets%7D"}, Deny, notPermitted, missing("query", "", "secrets")},
		{"GET of nothing", Request{Method: "GET", Path: "/graphql"}, Deny, rejected + "GraphQL request has no query document", nil},
		{"PUT", Request{Method: "PUT", Path: "/graphql"}, Deny, rejected + "unsupported GraphQL HTTP method PUT", nil},
		{"persisted", post("/graphql", `{"id":"x"}`), Deny, "GraphQL persisted query is not registered", nil},
	})
}

// What servers may read in different ways is refused in every mode.
func TestGraphQLMalformed(t *testing.T) {
	m := connect(t, engine(t, strings.ReplaceAll(graphqlRule, "enforcement: enforce", "enforcement: audit")))
	deep := strings.Repeat("{a", 200) + strings.Repeat("}", 200)
	sum := sha256.Sum256([]byte("{ viewer }"))
	tests := map[string]struct {
		request Request
		reason  string
	}{
		"empty":                     {post("/graphql", ""), "body is empty"},
		"not JSON":                  {post("/graphql", "{"), "not valid JSON"},
		"not UTF-8":                 {post("/graphql", "{\"query\":\"{ viewer }\xff\"}"), "not valid UTF-8"},
		"byte order mark":           {post("/graphql", "\ufeff"+envelope("{ viewer }")), "not valid JSON"},
		"trailing data":             {post("/graphql", envelope("{ viewer }")+envelope("{ a }")), "not valid JSON"},
		"repeated key":              {post("/graphql", `{"query":"{ a }","query":"{ viewer }"}`), "repeated key query"},
		"repeated key, escaped":     {post("/graphql", `{"query":"{ a }","\u0071uery":"{ viewer }"}`), "repeated key query"},
		"key of another case":       {post("/graphql", `{"query":"{ viewer }","Query":"{ a }"}`), "differs from \"query\" only in case"},
		"key that folds":            {post("/graphql", `{"query":"{ viewer }","extenſions":{}}`), "only in case"},
		"a number":                  {post("/graphql", "1"), "must be an object"},
		"empty batch":               {post("/graphql", "[]"), "batch request is empty"},
		"batch in a batch":          {post("/graphql", "[["+envelope("{ viewer }")+"]]"), "must be an object"},
		"query is no string":        {post("/graphql", `{"query":["{ viewer }"]}`), `"query" must be a string`},
		"no character":              {post("/graphql", `{"query":"{ viewer }","operationName":"\ud800"}`), "invalid character"},
		"deep JSON":                 {post("/graphql", strings.Repeat("[", 200)+strings.Repeat("]", 200)), "nested deeper"},
		"deep document":             {post("/graphql", envelope(deep)), "nested deeper"},
		"too deep for the parser":   {post("/graphql", envelope(strings.Repeat("{a", 5000))), "parse error"},
		"many tokens":               {post("/graphql", envelope("{"+strings.Repeat("a ", 25_000)+"}")), "parse error"},
		"syntax":                    {post("/graphql", envelope("{ viewer")), "parse error"},
		"type definition":           {post("/graphql", envelope("type A { b: C } query { viewer }")), "parse error"},
		"no operation":              {post("/graphql", envelope("fragment F on Q { viewer }")), "no executable operation"},
		"several operations":        {post("/graphql", envelope("query A { viewer } query B { viewer }")), "multiple operations but no operationName"},
		"same names":                {post("/graphql", `{"query":"query A { viewer } mutation A { a }","operationName":"A"}`), "names of their own"},
		"nameless among named":      {post("/graphql", `{"query":"query A { viewer } { a }","operationName":"A"}`), "names of their own"},
		"unknown operation":         {post("/graphql", `{"query":"query A { viewer }","operationName":"B"}`), "operationName B was not found"},
		"unknown fragment":          {post("/graphql", envelope("{ viewer ...F }")), "fragment F is not defined"},
		"unknown fragment, nested":  {post("/graphql", envelope("{ viewer { ...F } }")), "fragment F is not defined"},
		"cycle":                     {post("/graphql", envelope("{ ...F } fragment F on Q { viewer ...G } fragment G on Q { ...F }")), "includes itself"},
		"cycle, nested":             {post("/graphql", envelope("{ viewer } fragment F on Q { a { ...F } }")), "includes itself"},
		"fragment twice":            {post("/graphql", envelope("{ ...F } fragment F on Q { viewer } fragment F on Q { a }")), "is defined twice"},
		"form":                      {Request{Method: "POST", Path: "/graphql", Body: []byte(envelope("{ viewer }")), ContentType: "application/x-www-form-urlencoded"}, "Content-Type must be application/json"},
		"no media type":             {Request{Method: "POST", Path: "/graphql", Body: []byte(envelope("{ viewer }"))}, "Content-Type must be application/json"},
		"charset":                   {Request{Method: "POST", Path: "/graphql", Body: []byte(envelope("{ viewer }")), ContentType: "application/json; charset=utf-7"}, "charset must be utf-8"},
		"POST with a query string":  {Request{Method: "POST", Path: "/graphql", RawQuery: "query=%7Ba%7D", Body: []byte(envelope("{ viewer }")), ContentType: "application/json"}, "must not have query in its query string"},
		"POST, unreadable":          {Request{Method: "POST", Path: "/graphql", RawQuery: "a=1;query=%7Ba%7D", Body: []byte(envelope("{ viewer }")), ContentType: "application/json"}, "query string is not readable"},
		"GET twice":                 {Request{Method: "GET", Path: "/graphql", RawQuery: "query=%7Bviewer%7D&query=%7Ba%7D"}, "must not appear more than once"},
		"GET, another case":         {Request{Method: "GET", Path: "/graphql", RawQuery: "query=%7Bviewer%7D&QUERY=%7Ba%7D"}, "only in case"},
		"GET with a body":           {Request{Method: "GET", Path: "/graphql", RawQuery: "query=%7Bviewer%7D", Body: []byte("{}")}, "must not have a body"},
		"GET with bad extensions":   {Request{Method: "GET", Path: "/graphql", RawQuery: "query=%7Bviewer%7D&extensions=%7B"}, "extensions: not valid JSON"},
		"another query's hash":      {post("/graphql", `{"query":"{ viewer }","extensions":{"persistedQuery":{"sha256Hash":"00"}}}`), "sha256Hash is not the query's"},
		"hash and id":               {post("/graphql", `{"id":"x","extensions":{"persistedQuery":{"sha256Hash":"00"}}}`), "must not be combined"},
		"two ids":                   {post("/graphql", `{"id":"x","documentId":"y"}`), "must not be combined"},
		"persistedQuery is a list":  {post("/graphql", `{"extensions":{"persistedQuery":[]}}`), "must be objects"},
		"persistedQuery's key case": {post("/graphql", `{"extensions":{"PersistedQuery":{"sha256Hash":"`+hex.EncodeToString(sum[:])+`"}}}`), "only in case"},
	}
	for name, tt := range tests {
		if v := m.Request(tt.request); v.Decision != Deny || !v.Malformed || v.Missing != nil ||
			!strings.HasPrefix(v.Reason, "GraphQL request rejected: ") || !strings.Contains(v.Reason, tt.reason) || len(v.Reason) > 400 {
			t.Errorf("%s: %+v, want %s", name, v, tt.reason)
		}
	}
	// Refusals that are not malformed are only audited.
	if v := m.Request(post("/graphql", envelope("{ a }"))); v.Decision != Audit || len(v.Missing) != 1 {
		t.Errorf("audit: %+v", v)
	}
}

func TestGraphQLPersistedQueries(t *testing.T) {
	const rules = `
api:
  endpoints:
    - host: h.example
      port: 443
      protocol: graphql
      enforcement: enforce
      persisted_queries: %s
      graphql_persisted_queries:
        abc123: { operation_type: query, operation_name: Viewer, fields: [viewer] }
        save: { operation_type: mutation, operation_name: Save, fields: [save] }
        vague: { operation_type: query }
      rules:
        - allow: { operation_type: query, fields: [viewer] }
      deny_rules:
        - { operation_type: mutation, fields: [wipe] }
`
	sum := sha256.Sum256([]byte("{ viewer }"))
	hash := func(h string) string {
		return fmt.Sprintf(`"extensions":{"persistedQuery":{"version":1,"sha256Hash":%q}}`, h)
	}
	m := connect(t, engine(t, fmt.Sprintf(rules, "allow_registered")))
	checkContent(t, m, []contentCase{
		{"hash", post("/", "{"+hash("abc123")+"}"), Allow, "", nil},
		{"id", post("/", `{"documentId":"abc123"}`), Allow, "", nil},
		{"by GET", Request{Method: "GET", Path: "/", RawQuery: "queryId=abc123"}, Allow, "", nil},
		{"hash by GET", Request{Method: "GET", Path: "/", RawQuery: "extensions=" + url.QueryEscape(`{"persistedQuery":{"sha256Hash":"abc123"}}`)}, Allow, "", nil},
		{"not registered", post("/", `{"id":"other"}`), Deny, "GraphQL persisted query is not registered", nil},
		{"registered, not allowed", post("/", `{"id":"save"}`), Deny, "GraphQL operation not permitted by policy: mutation Save { save }",
			[]policy.L7Match{{OperationType: "mutation", OperationName: "Save", Fields: []string{"save"}}}},
		{"registered without fields", post("/", `{"id":"vague"}`), Deny, "GraphQL operation not permitted by policy", []policy.L7Match{{OperationType: "query"}}},
		{"a query with its hash", post("/", `{"query":"{ viewer }",`+hash(hex.EncodeToString(sum[:]))+"}"), Allow, "", nil},
		{"a query with a stored one's id", post("/", `{"query":"{ viewer }","id":"save"}`), Deny, "GraphQL operation not permitted by policy: mutation Save",
			[]policy.L7Match{{OperationType: "mutation", OperationName: "Save", Fields: []string{"save"}}}},
	})
	if v := connect(t, engine(t, fmt.Sprintf(rules, "deny"))).Request(post("/", `{"id":"abc123"}`)); v.Decision != Deny {
		t.Errorf("persisted_queries: deny: %+v", v)
	}
}

// Operations are allowed by what all endpoints allow together, so that a
// learned rule adds to the base.
func TestGraphQLAcrossRules(t *testing.T) {
	p := policytest.Network(t, `
base:
  endpoints: [{ host: h.example, port: 443, protocol: graphql, enforcement: enforce, access: read-only }]
`)
	learned := policytest.Network(t, `
# openshell.ai/learned
issue:
  endpoints: [{ host: h.example, port: 443, protocol: graphql, enforcement: enforce, rules: [{ allow: { operation_type: mutation, fields: [createIssue] } }] }]
  binaries: [{ path: /b }]
# openshell.ai/learned
rest:
  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, rules: [{ allow: { method: POST, path: /graphql } }] }]
  binaries: [{ path: /b }]
`)
	m := connect(t, mustCompile(t, policy.Merge(p, learned)))
	batch := "[" + envelope("{ a }") + "," + envelope("mutation { createIssue }") + "]"
	if v := m.Request(post("/graphql", batch)); v.Decision != Allow || v.Protocol != "graphql" {
		t.Errorf("union: %+v", v)
	}
	if v := m.Request(post("/graphql", envelope("mutation { wipe }"))); v.Decision != Deny || v.Protocol != "graphql" {
		t.Errorf("a REST rule must not allow an operation: %+v", v)
	}
}

func TestGraphQLPresets(t *testing.T) {
	for access, kinds := range map[string]string{"read-only": "query", "read-write": "query mutation", "full": "query mutation subscription"} {
		m := connect(t, engine(t, fmt.Sprintf("r:\n  endpoints: [{ host: h.example, port: 443, protocol: graphql, enforcement: enforce, access: %s }]", access)))
		for _, kind := range []string{"query", "mutation", "subscription"} {
			want := strings.Contains(kinds, kind)
			if v := m.Request(post("/", envelope(kind+" { a }"))); (v.Decision == Allow) != want {
				t.Errorf("%s: %s: %+v", access, kind, v)
			}
		}
	}
}
