// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"unicode/utf8"

	"openshell.ai/openshell/policy"
)

// Text decides a text message that a client sends on the WebSocket which r
// opened. Messages of GraphQL endpoints are GraphQL over WebSocket
// (graphql-transport-ws, and the graphql-ws of subscriptions-transport-ws),
// those of JSON-RPC and MCP endpoints are what POST would carry as a body.
func (m Match) Text(r Request, message []byte) Verdict {
	if r.Target.Plain() {
		return m.text(&r, message)
	}
	return m.ofReadings(r, &message)
}

// text decides a message on one reading of the request.
func (m *Match) text(r *Request, message []byte) Verdict {
	if v, decided := m.connection(); decided {
		return v
	}
	c := m.cover(r, policy.MethodWebSocketText)
	switch {
	case !c.covered():
		return c.refuse(r.reason(policy.MethodWebSocketText, "did not match an L7 endpoint path"))
	case !utf8.Valid(message):
		return c.malformed("WebSocket text message is not valid UTF-8")
	case c.ambiguous:
		return c.several(r)
	case c.inspector == nil: // rules decide the upgrade only
		return c.allow()
	default:
		return c.inspector.message(*m, c, *r, message)
	}
}

// websocket decides the upgrade by its rules on method, path and query, and messages by
// those too, unless the endpoint has rules on GraphQL operations.
var websocket = inspector{
	rules: func(source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error) {
		if !source.HasGraphQLPolicy() {
			return nil, nil
		}
		return compileGraphQL(source, allowed)
	},
	sees: func(c coverage, _ Request) (body, text bool) { return false, c.content || c.denied || !c.allowed },
	message: func(m Match, c coverage, r Request, message []byte) Verdict {
		if c.content {
			return m.operationsMessage(&c, &r, message)
		}
		return c.decideHTTP(&r, policy.MethodWebSocketText)
	},
}
