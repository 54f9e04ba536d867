// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy/httptarget"
)

// matches checks an endpoint's rules and deny rules.
func (v *validator) matches(path string, e *Endpoint) {
	for i := range e.Rules {
		v.match(Element(path+".rules", i)+".allow", e, &e.Rules[i].Allow)
	}
	for i := range e.DenyRules {
		v.match(Element(path+".deny_rules", i), e, &e.DenyRules[i])
	}
	switch {
	case e.Protocol == ProtocolMCP && e.RestrictsTools():
		v.toolConflicts(path, e)
	case e.Protocol == ProtocolWebSocket && e.HasGraphQLPolicy():
		for i := range e.Rules {
			if strings.EqualFold(e.Rules[i].Allow.Method, MethodWebSocketText) {
				v.problem(Element(path+".rules", i)+".allow", "WebSocket endpoints with GraphQL operation policy must use operation_type/operation_name/fields rules for client messages instead of WEBSOCKET_TEXT")
			}
		}
	}
}

// match checks one rule by its endpoint's protocol. A field that the protocol
// does not have is refused: ignoring it could allow more than is said.
func (v *validator) match(path string, e *Endpoint, m *L7Match) {
	switch e.Protocol {
	case ProtocolREST:
		v.onlyFields(path, e, m, "method", "path", "query")
		v.request(path, e, m)
	case ProtocolWebSocket:
		v.onlyFields(path, e, m, "method", "path", "query", "operation_type", "operation_name", "fields")
		switch transport := m.Method != "" || m.Path != "" || m.Query != nil; {
		case transport && m.IsGraphQL():
			v.problem(path, "WebSocket GraphQL rules must not combine method/path/query with operation_type/operation_name/fields")
		case m.IsGraphQL():
			v.operation(path, m)
		default:
			v.request(path, e, m)
		}
	case ProtocolGraphQL:
		v.onlyFields(path, e, m, "operation_type", "operation_name", "fields")
		v.operation(path, m)
	case ProtocolJSONRPC:
		v.onlyFields(path, e, m, "method")
		v.rpcMethod(path+".method", m.Method)
	case ProtocolMCP:
		v.onlyFields(path, e, m, "method", "tool", "params")
		v.mcpCall(path, e, m)
	case ProtocolSQL:
		v.onlyFields(path, e, m, "command")
		if m.Command == "" {
			v.problem(path+".command", "is required: name an SQL command, or '*' for any")
		}
		v.plainText(path+".command", m.Command, maxNameBytes)
	}
}

// onlyFields refuses the fields of other protocols.
func (v *validator) onlyFields(path string, e *Endpoint, m *L7Match, known ...string) {
	for _, f := range []struct {
		name    string
		present bool
		reason  string
	}{
		{"method", m.Method != "", "is not a field of %s rules"},
		{"path", m.Path != "", "%s L7 rules must not use path/query"},
		{"query", m.Query != nil, "%s L7 rules must not use path/query"},
		{"command", m.Command != "", "command is only valid for protocol sql, not %s"},
		{"operation_type", m.OperationType != "", "GraphQL rule fields are only valid for protocol graphql or websocket, not %s"},
		{"operation_name", m.OperationName != "", "GraphQL rule fields are only valid for protocol graphql or websocket, not %s"},
		{"fields", m.Fields != nil, "GraphQL rule fields are only valid for protocol graphql or websocket, not %s"},
		{"tool", !m.Tool.IsZero(), "MCP tool matching is only valid for protocol mcp, not %s"},
		{"params", m.Params != nil, "params matching is only valid for protocol mcp, not %s"},
	} {
		if f.present && !slices.Contains(known, f.name) {
			v.problem(path+"."+f.name, f.reason, e.Protocol)
		}
	}
}

func (v *validator) request(path string, e *Endpoint, m *L7Match) {
	switch {
	case m.Method == "":
		v.problem(path+".method", "is required: name an HTTP method, or '*' for any")
	case m.Method == "*":
	case strings.Trim(m.Method, methodChars) != "":
		v.problem(path+".method", "%s is not an HTTP method", printable.Text(m.Method))
	case e.Protocol == ProtocolWebSocket && !strings.EqualFold(m.Method, "GET") && !strings.EqualFold(m.Method, MethodWebSocketText):
		v.warn(path+".method", "%s never opens a WebSocket: use GET for the upgrade and WEBSOCKET_TEXT for messages", m.Method)
	}
	v.requestPath(path+".path", m.Path)
	for _, key := range slices.Sorted(maps.Keys(m.Query)) {
		at := Child(path+".query", key)
		v.plainText(at, key, maxNameBytes)
		v.matcher(at, m.Query[key])
	}
}

// matcher checks a set of globs over values.
func (v *validator) matcher(path string, m Matcher) {
	if len(m.Any) == 0 {
		v.problem(path, "must be a glob or {any: [globs]}, with at least one")
	}
	for _, pattern := range m.Any {
		if v.plainText(path, pattern, wildcard.MaxGlob) {
			v.glob(path, pattern, '.')
		}
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

// rpcMethod checks a method of JSON-RPC, which is exact or a lone `*`.
func (v *validator) rpcMethod(path, method string) {
	switch {
	case method == "":
		v.problem(path, "required for json-rpc L7 rules")
	case !v.plainText(path, method, maxNameBytes):
	case method != "*" && wildcard.IsGlob(method):
		v.problem(path, `generic JSON-RPC method rules do not support glob or wildcard matchers; use "*" to allow all methods or an exact method name`)
	}
}

func (v *validator) mcpCall(path string, e *Endpoint, m *L7Match) {
	selector, at := m.ToolMatcher(), path+".tool"
	if m.Tool.IsZero() {
		at = path + ".params.name"
	}
	switch {
	case m.Method == "" && !e.AllowsKnownMCPMethods():
		v.problem(path+".method", "required when mcp.allow_all_known_mcp_methods is false")
	case m.Method == "" && selector.IsZero():
		v.problem(path, "names neither a method nor a tool")
	case !v.plainText(path+".method", m.Method, maxNameBytes):
	case wildcard.IsGlob(m.Method) && !strings.HasPrefix(m.Method, "tools/"):
		v.problem(path+".method", "MCP method globs are only valid for the tools/ method family; omit method to use the endpoint method profile")
	case !selector.IsZero() && m.Method != "" && m.Method != MethodToolsCall:
		v.problem(path+".method", "must be tools/call when an MCP rule uses tool or params.name, got '%s'", m.Method)
	case wildcard.IsGlob(m.Method):
		v.glob(path+".method", m.Method, '.')
	}
	_, named := m.Params["name"]
	if named && !m.Tool.IsZero() {
		v.problem(path, "MCP rules must use either tool or params.name, not both")
	}
	for _, key := range slices.Sorted(maps.Keys(m.Params)) {
		if key != "name" {
			v.problem(Child(path+".params", key), "MCP tool argument matching is not supported yet")
		}
	}
	if selector.IsZero() {
		return
	}
	v.matcher(at, selector)
	if !e.StrictToolNames() && slices.ContainsFunc(selector.Any, wildcard.IsGlob) {
		v.problem(at, "wildcard tool-name matchers require mcp.strict_tool_names to remain enabled")
	}
}

// toolConflicts refuses rules for all tools beside rules for some.
func (v *validator) toolConflicts(path string, e *Endpoint) {
	coversAll := func(m *L7Match) bool {
		g, err := wildcard.CompileGlob(m.Method, '.')
		return m.ToolMatcher().IsZero() && err == nil && g.Match(MethodToolsCall)
	}
	for i := range e.Rules {
		if coversAll(&e.Rules[i].Allow) {
			v.problem(Element(path+".rules", i)+".allow", "method matcher allows every tool call and conflicts with MCP tool allow rules; add tool or params.name to narrow tools/call, or remove the tool allow rules")
		}
	}
	for i := range e.DenyRules {
		if coversAll(&e.DenyRules[i]) {
			v.problem(Element(path+".deny_rules", i), "method matcher denies every tool call and conflicts with MCP tool allow rules; add tool or params.name to deny specific tools, or remove the tool allow rules")
		}
	}
}

// Valid reports whether an endpoint of the protocol can have the match in its rules.
func (m *L7Match) Valid(protocol string) bool {
	lenient := false
	e := Endpoint{Protocol: protocol, MCP: &MCPOptions{StrictToolNames: &lenient}}
	v := &validator{}
	v.match("", &e, m)
	return len(v.problems) == 0
}
