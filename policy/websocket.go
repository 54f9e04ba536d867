// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// MethodWebSocketText stands for a client's text messages in rules.
const MethodWebSocketText = "WEBSOCKET_TEXT"

// websocket is HTTP's upgrade, and the client's text messages after it.
var websocket = Protocol{
	Name:    ProtocolWebSocket,
	Rank:    2,
	HTTP:    true,
	Content: true,
	alsoOf:  []string{"method", "path", "query", ProtocolGraphQL},
	presets: map[string][]L7Match{
		AccessReadOnly:  methods("GET"),
		AccessReadWrite: methods("GET", MethodWebSocketText),
		AccessFull:      methods("*"),
	},
	maxBody: graphql.maxBody,
	traits: func(e *Endpoint) []trait {
		return []trait{{"websocket_graphql_policy", e.HasGraphQLPolicy()}}
	},
	checkMatch: func(v *validator, path string, e *Endpoint, m *L7Match) {
		text := strings.EqualFold(m.Method, MethodWebSocketText)
		switch transport := m.Method != "" || m.Path != "" || m.Query != nil; {
		case transport && m.IsGraphQL():
			v.problem(path,
				"WebSocket GraphQL rules must not combine method/path/query with operation_type/operation_name/fields")
			return
		case m.IsGraphQL():
			v.operation(path, m)
			return
		}
		v.request(path, m)
		if m.Method != "" && m.Method != "*" && !strings.EqualFold(m.Method, "GET") && !text {
			v.warn(path+".method", "%s never opens a WebSocket: use GET for the upgrade and WEBSOCKET_TEXT for messages",
				m.Method)
		}
	},
	check: func(v *validator, path string, e *Endpoint) {
		if !e.HasGraphQLPolicy() {
			return
		}
		for i := range e.Rules {
			if strings.EqualFold(e.Rules[i].Allow.Method, MethodWebSocketText) {
				v.problem(Element(path+".rules", i)+".allow", "WebSocket endpoints with GraphQL operation policy must use operation_type/operation_name/fields rules for client messages instead of WEBSOCKET_TEXT")
			}
		}
	},
}

// HasGraphQLPolicy reports whether a WebSocket endpoint's messages are
// decided as GraphQL operations.
func (e *Endpoint) HasGraphQLPolicy() bool {
	return len(e.GraphQLPersistedQueries) > 0 || e.PersistedQueries == PersistedQueriesAllowRegistered ||
		slices.ContainsFunc(e.Rules, func(r L7Allow) bool { return r.Allow.IsGraphQL() }) ||
		slices.ContainsFunc(e.DenyRules, func(m L7Match) bool { return m.IsGraphQL() })
}
