// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/policy"
)

var jsonRPC = inspector{
	rules: func(source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error) {
		return compileCalls(&callRules{}, source, allowed)
	},
	sees:    callsSeen,
	request: func(m Match, c coverage, r Request) Verdict { return m.decideCalls(&c, &r, false) },
	message: func(m Match, c coverage, r Request, message []byte) Verdict {
		return m.decideMessages(&c, &r, message, false)
	},
}

// callsSeen: a GET has no body, or else is refused.
func callsSeen(_ coverage, r Request) (body, text bool) {
	return strings.EqualFold(r.Method, "POST") || strings.EqualFold(r.Method, "GET"), true
}

// call is what policy sees of a JSON-RPC request or notification.
type call struct {
	method string
	tool   string // params.name of MCP's tools/call
}

// messages are what a JSON-RPC body holds.
type messages struct {
	calls     []call
	responses bool // answers to the server's own requests
}

// readMessages reads a body (JSON-RPC 2.0 sections 4 to 6; for MCP with what its
// schema adds). The error says why it cannot be known what is called.
func readMessages(body []byte, mcp bool) (messages, error) {
	var all messages
	value, err := readJSON(body)
	if err != nil {
		return all, err
	}
	batch, ok := value.([]any)
	switch {
	case !ok:
		return all, all.read(value, mcp)
	case len(batch) == 0:
		return all, errors.New("empty batch")
	}
	for _, item := range batch {
		if err := all.read(item, mcp); err != nil {
			return all, fmt.Errorf("batch item invalid: %w", err)
		}
	}
	return all, nil
}

// read adds one message.
func (all *messages) read(value any, mcp bool) error {
	message, ok := value.(map[string]any)
	if !ok {
		return errors.New("a message must be an object")
	}
	if err := checkKeys(message, "jsonrpc", "method", "params", "id", "result", "error"); err != nil {
		return err
	}
	if version, _ := message["jsonrpc"].(string); version != "2.0" {
		return errors.New(`"jsonrpc" must be "2.0"`)
	}
	if err := checkID(message); err != nil {
		return err
	}
	_, hasMethod := message["method"]
	_, hasResult := message["result"]
	_, hasError := message["error"]
	switch {
	case hasMethod && (hasResult || hasError):
		return errors.New("JSON-RPC message includes both method and result/error")
	case hasMethod:
		c, err := readCall(message, mcp)
		all.calls = append(all.calls, c)
		return err
	case hasResult && hasError:
		return errors.New("JSON-RPC response includes both result and error")
	case hasResult || hasError:
		if _, hasID := message["id"]; !hasID {
			return errors.New("JSON-RPC response missing id")
		}
		all.responses = true
		return nil
	}
	return errors.New(`missing or non-string "method"`)
}

func checkID(message map[string]any) error {
	switch message["id"].(type) {
	case nil, string, json.Number:
		return nil
	}
	return errors.New(`"id" must be a string, a number or null`)
}

func readCall(message map[string]any, mcp bool) (call, error) {
	method, err := stringMember(message, "method")
	if err == nil && method == "" {
		err = errors.New(`missing or non-string "method"`)
	}
	if err != nil {
		return call{}, err
	}
	params, given := message["params"]
	object, isObject := params.(map[string]any)
	_, isArray := params.([]any)
	switch {
	case given && mcp && !isObject:
		return call{}, errors.New(`"params" must be an object`)
	case given && !isObject && !isArray:
		return call{}, errors.New(`"params" must be an object or an array`)
	case !mcp || method != policy.MethodToolsCall:
		return call{method: method}, nil
	}
	if err := checkKeys(object, "name"); err != nil {
		return call{}, err
	}
	tool, err := stringMember(object, "name")
	if err == nil && tool == "" {
		err = errors.New(`tools/call needs "params" with the tool's "name"`)
	}
	return call{method: method, tool: tool}, err
}

// decideCalls decides a request by the JSON-RPC calls in its body.
func (m *Match) decideCalls(c *coverage, r *Request, mcp bool) Verdict {
	get := strings.EqualFold(r.Method, "GET")
	switch {
	case !get && !strings.EqualFold(r.Method, "POST"):
		return c.refuse(r.reason(r.Method, "not permitted by policy: calls are made with POST"))
	case r.Body == nil:
		return c.unseen()
	case get && len(r.Body) > 0:
		return c.malformed("JSON-RPC request rejected: a GET must not have a body")
	case get && c.denied:
		return c.refuse(r.reason(r.Method, "blocked by deny rule"))
	case get: // the stream of what the server sends
		return c.allow()
	}
	if _, err := checkMediaType(r.ContentType, "application/json-rpc", "application/jsonrequest"); err != nil {
		return c.malformed("JSON-RPC request rejected: " + err.Error())
	}
	return m.decideMessages(c, r, r.Body, mcp)
}

// decideMessages decides what a body or a message calls. What cannot be read is
// malformed whatever the rules say: a deny rule that is only logged, or not
// enforced in permissive mode, must not let it pass.
func (m *Match) decideMessages(c *coverage, r *Request, body []byte, mcp bool) Verdict {
	all, err := readMessages(body, mcp)
	switch {
	case err != nil:
		return c.malformed("JSON-RPC request rejected: " + err.Error())
	case slices.ContainsFunc(all.calls, func(called call) bool { return !m.nameable(c, r, called) }):
		return c.malformed("MCP tool name must match ^[A-Za-z0-9_.-]{1,128}$ when strict_tool_names is enabled")
	case c.denied:
		return c.refuse(r.reason(r.Method, "blocked by deny rule"))
	case all.responses && !mcp:
		return c.refuse("JSON-RPC response frames are not permitted from client to server")
	}
	var missing []policy.L7Match
	first := ""
	for _, called := range all.calls {
		allowed, denied := false, false
		for ep := range m.covering(r.Path) {
			rules, ok := ep.content.(*callRules)
			if !ok || ep.protocol != c.protocol {
				continue
			}
			allowed = allowed || rules.allows(called)
			denied = denied || rules.deny.match(called)
		}
		switch {
		case denied:
			return c.refuse(r.reason(r.Method, "blocked by deny rule: "+called.describe()))
		case !allowed:
			missing = append(missing, called.asMatch())
			if first == "" {
				first = called.describe()
			}
		}
	}
	if len(missing) > 0 {
		return c.refuse(r.reason(r.Method, "not permitted by policy: "+first), missing...)
	}
	return c.allow()
}

// nameable reports whether one of the endpoints takes the name of the call's tool.
func (m *Match) nameable(c *coverage, r *Request, called call) bool {
	if called.tool == "" || policy.StrictToolName(called.tool) {
		return true
	}
	for ep := range m.covering(r.Path) {
		if rules, ok := ep.content.(*callRules); ok && ep.protocol == c.protocol && !rules.strict {
			return true
		}
	}
	return false
}

func (c call) describe() string {
	if c.tool == "" {
		return printable.Brief(c.method)
	}
	return printable.Brief(c.method) + " " + printable.Brief(c.tool)
}

func (c call) asMatch() policy.L7Match {
	m := policy.L7Match{Method: c.method}
	if c.tool != "" {
		m.Tool = policy.Matcher{Any: []string{c.tool}}
	}
	return m
}
