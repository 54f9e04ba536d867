// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"openshell.ai/openshell/internal/printable"
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
	case c.protocol == policy.ProtocolREST: // decides the upgrade only
		return c.allow()
	case c.protocol == policy.ProtocolJSONRPC || c.protocol == policy.ProtocolMCP:
		return m.decideMessages(&c, r, message)
	case c.graphql:
		operations, err := messageOperations(message)
		if err != nil {
			return c.malformed("GraphQL WebSocket message rejected: " + err.Error())
		}
		return m.decideOperations(&c, r, operations)
	default:
		return c.decideHTTP(r, policy.MethodWebSocketText)
	}
}

// messageOperations reads what a message asks to execute: nothing, where it
// only controls the connection.
func messageOperations(message []byte) ([]operation, error) {
	value, err := readJSON(message)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("a message must be an object")
	}
	if err := checkKeys(object, "type", "id", "payload"); err != nil {
		return nil, err
	}
	kind, err := stringMember(object, "type")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "connection_init", "connection_terminate", "ping", "pong", "complete", "stop":
		return nil, nil
	case "subscribe", "start":
	default:
		return nil, fmt.Errorf("unsupported client message type %s", printable.Brief(kind))
	}
	if id, _ := object["id"].(string); id == "" {
		return nil, errors.New("an operation needs an id")
	}
	return envelopeOperations(object["payload"])
}
