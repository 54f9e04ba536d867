// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"

	"openshell.ai/openshell/policy"
)

// inspector is how a protocol decides by what requests carry. The functions get copies, so
// that what they are called with need not be allocated.
type inspector struct {
	// rules compiles what an endpoint says of content; nil where it says nothing.
	rules func(source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error)
	// sees says what has to be seen of a request besides its first line.
	sees func(c coverage, r Request) (body, text bool)
	// request decides a request. Nil: rules on method, path and query do.
	request func(m Match, c coverage, r Request) Verdict
	// message decides a text message on a WebSocket.
	message func(m Match, c coverage, r Request, message []byte) Verdict
}

// contentRules are an endpoint's rules on content: each protocol knows its own.
type contentRules any

// inspectors are those of the protocols whose requests are decided by content. The others
// have rules on method, path and query only.
var inspectors = map[string]*inspector{
	policy.ProtocolWebSocket: &websocket,
	policy.ProtocolGraphQL:   &graphql,
	policy.ProtocolJSONRPC:   &jsonRPC,
	policy.ProtocolMCP:       &mcp,
}

// compileRules compiles an endpoint's rules: those on method, path and query, which have a
// path, and those on content.
func (ep *endpoint) compileRules(source *policy.Endpoint) (err error) {
	allowed := source.Allowed()
	if ep.protocol.HTTP {
		if ep.allow, err = compileRequests(allowed); err != nil {
			return err
		}
		if ep.deny, err = compileRequests(source.DenyRules); err != nil {
			return err
		}
	}
	if !ep.protocol.Content {
		return nil
	}
	if ep.inspector = inspectors[ep.protocol.Name]; ep.inspector == nil {
		return fmt.Errorf("protocol %s has no inspector", ep.protocol.Name)
	}
	ep.content, err = ep.inspector.rules(source, allowed)
	return err
}
