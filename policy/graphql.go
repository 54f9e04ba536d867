// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// graphql is decided per operation, over HTTP or WebSocket.
var graphql = Protocol{
	Name:      ProtocolGraphQL,
	Rank:      3,
	Content:   true,
	Malformed: "invalid_graphql_request",
	options: []option{{
		name:   "persisted_queries",
		given:  func(e *Endpoint) bool { return e.PersistedQueries != "" },
		decode: func(d *decoder, to *Endpoint) field { return d.text(&to.PersistedQueries) },
	}, {
		name:   "graphql_persisted_queries",
		given:  func(e *Endpoint) bool { return e.GraphQLPersistedQueries != nil },
		decode: func(d *decoder, to *Endpoint) field { return d.persistedQueries(&to.GraphQLPersistedQueries) },
	}, {
		name:   "graphql_max_body_bytes",
		given:  func(e *Endpoint) bool { return e.GraphQLMaxBodyBytes != 0 },
		decode: func(d *decoder, to *Endpoint) field { return d.size(&to.GraphQLMaxBodyBytes) },
	}},
	fields: []matchField{{
		name:    "operation_type",
		present: func(m *L7Match) bool { return m.OperationType != "" },
		refused: graphqlOnly,
		decode:  func(d *decoder, to *L7Match) field { return d.text(&to.OperationType) },
		words:   func(m *L7Match) string { return m.OperationType },
	}, {
		name:    "operation_name",
		present: func(m *L7Match) bool { return m.OperationName != "" },
		refused: graphqlOnly,
		decode:  func(d *decoder, to *L7Match) field { return d.text(&to.OperationName) },
		words:   func(m *L7Match) string { return m.OperationName },
	}, {
		name:    "fields",
		present: func(m *L7Match) bool { return m.Fields != nil },
		refused: graphqlOnly,
		decode: func(d *decoder, to *L7Match) field {
			return func(n *yaml.Node, path string) { to.Fields = list(d, n, path, d.text) }
		},
		words: func(m *L7Match) string {
			if m.Fields == nil {
				return ""
			}
			return "{" + strings.Join(m.Fields, " ") + "}"
		},
	}},
	presets: map[string][]L7Match{
		AccessReadOnly:  {{OperationType: "query"}},
		AccessReadWrite: {{OperationType: "query"}, {OperationType: "mutation"}},
		AccessFull:      {{OperationType: "*"}},
	},
	maxBody: func(e *Endpoint) uint32 { return e.GraphQLMaxBodyBytes },
	traits:  func(e *Endpoint) []trait { return []trait{{"max_body_bytes", e.MaxBody()}} },
	checkOptions: func(v *validator, path string, e *Endpoint) {
		if !oneOf(e.PersistedQueries, PersistedQueriesDeny, PersistedQueriesAllowRegistered) {
			v.problem(path+".persisted_queries", "persisted_queries must be 'deny' or 'allow_registered', got '%s'",
				printable.Text(e.PersistedQueries))
		}
		for _, key := range slices.Sorted(maps.Keys(e.GraphQLPersistedQueries)) {
			at := Child(path+".graphql_persisted_queries", key)
			if v.plainText(at, key, maxNameBytes) && key == "" {
				v.problem(at, "is keyed by the hash or id of the query, which must not be empty")
			}
			operation := e.GraphQLPersistedQueries[key]
			v.registered(at, &operation)
		}
	},
	unused: func(v *validator, path string, e *Endpoint) {
		if e.Protocol != ProtocolWebSocket {
			v.warn(path, "GraphQL-specific endpoint fields are ignored unless protocol is graphql or websocket")
		}
	},
	checkMatch: func(v *validator, path string, _ *Endpoint, m *L7Match) { v.operation(path, m) },
}

const graphqlOnly = "GraphQL rule fields are only valid for protocol graphql or websocket, not %s"

// IsGraphQL reports whether the match is on GraphQL operations.
func (m *L7Match) IsGraphQL() bool {
	return m.OperationType != "" || m.OperationName != "" || m.Fields != nil
}

func (d *decoder) persistedQueries(to *map[string]GraphQLOperation) field {
	return func(n *yaml.Node, path string) {
		operations := map[string]GraphQLOperation{}
		d.entries(n, path, func(key, value *yaml.Node, at string) {
			var operation GraphQLOperation
			d.mapping(value, at, map[string]field{
				"operation_type": d.text(&operation.OperationType),
				"operation_name": d.text(&operation.OperationName),
				"fields":         d.texts(&operation.Fields),
			})
			operations[key.Value] = operation
		})
		if len(operations) > 0 {
			*to = operations
		}
	}
}

// operation checks a GraphQL rule.
func (v *validator) operation(path string, m *L7Match) {
	v.operationType(path+".operation_type", m.OperationType, "query", "mutation", "subscription", "*")
	if m.OperationName != "" && v.plainText(path+".operation_name", m.OperationName, wildcard.MaxGlob) {
		v.glob(path+".operation_name", m.OperationName, '.')
	}
	if m.Fields != nil && len(m.Fields) == 0 {
		v.problem(path+".fields", "list must not be empty; omit fields to match all root fields")
	}
	for i, field := range m.Fields {
		at := Element(path+".fields", i)
		if field == "" {
			v.problem(at, "field glob must not be empty")
		} else if v.plainText(at, field, wildcard.MaxGlob) {
			v.glob(at, field, '.')
		}
	}
}

// registered checks an operation of the registry, which is taken as it is: its
// values are no globs.
func (v *validator) registered(path string, o *GraphQLOperation) {
	v.operationType(path+".operation_type", o.OperationType, "query", "mutation", "subscription")
	v.plainText(path+".operation_name", o.OperationName, maxNameBytes)
	for i, field := range o.Fields {
		if v.plainText(Element(path+".fields", i), field, maxNameBytes) && field == "" {
			v.problem(Element(path+".fields", i), "must not be empty")
		}
	}
}

func (v *validator) operationType(path, value string, known ...string) {
	switch {
	case value == "":
		v.problem(path, "required for GraphQL L7 rules")
	case !slices.Contains(known, strings.ToLower(value)):
		v.problem(path, "expected %s, got '%s'", strings.Join(known, ", "), printable.Text(value))
	}
}
