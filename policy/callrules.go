// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

const methodToolsCall = "tools/call"

// callRules are an endpoint's rules on JSON-RPC calls.
type callRules struct {
	allow, deny callSet
	strict      bool // MCP tools must have a name that strictToolName accepts
	known       bool // the methods of MCP itself are allowed
	restricted  bool // rules name tools: known does not allow others
}

// callSet is a compiled list of matches.
type callSet struct {
	all     bool
	methods map[string]bool
	globs   []glob // over methods
	tools   map[string]bool
	toolSet affixIndex[glob]
}

func compileCalls(source *Endpoint, allowed []L7Match) (*callRules, error) {
	rules := &callRules{
		strict:     source.Protocol == ProtocolMCP && source.strictToolNames(),
		known:      source.Protocol == ProtocolMCP && source.allowsKnownMCPMethods(),
		restricted: source.restrictsTools(),
	}
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
	return rules, nil
}

func (s *callSet) add(source *L7Match) error {
	switch tools := source.toolMatcher(); {
	case !tools.IsZero():
		return s.addTools(tools)
	case source.Method == "*":
		s.all = true
	case isGlob(source.Method):
		g, err := compileGlob(source.Method, '.')
		if err != nil {
			return err
		}
		s.globs = append(s.globs, g)
	default:
		if s.methods == nil {
			s.methods = map[string]bool{}
		}
		s.methods[source.Method] = true
	}
	return nil
}

func (s *callSet) addTools(tools Matcher) error {
	for _, pattern := range tools.Any {
		if isGlob(pattern) {
			g, err := compileGlob(pattern, '.')
			if err != nil {
				return err
			}
			s.toolSet.add(g.affix, g)
			continue
		}
		if s.tools == nil {
			s.tools = map[string]bool{}
		}
		s.tools[pattern] = true
	}
	return nil
}

func (s *callSet) match(c call) bool {
	return s.all || s.methods[c.method] || anyMatches(s.globs, c.method) ||
		c.method == methodToolsCall && (s.tools[c.tool] || s.toolSet.any(c.tool, func(g glob) bool { return g.match(c.tool) }))
}

func (r *callRules) allows(c call) bool {
	if r.strict && c.tool != "" && !strictToolName(c.tool) {
		return false
	}
	known := r.known && slices.Contains(knownMCPMethods, c.method) && !(r.restricted && c.method == methodToolsCall)
	return known || r.allow.match(c)
}

// strictToolName reports whether a tool's name is of the form that MCP
// recommends (2025-11-25, server/tools, tool names).
func strictToolName(name string) bool {
	const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	return name != "" && len(name) <= 128 && strings.Trim(name, chars) == ""
}

// knownMCPMethods are the requests and notifications that MCP defines for
// clients, in its revisions from 2025-03-26 to 2025-11-25.
var knownMCPMethods = []string{
	"initialize", "ping", "logging/setLevel", "completion/complete",
	"tools/list", methodToolsCall,
	"resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
	"prompts/list", "prompts/get",
	"tasks/get", "tasks/result", "tasks/list", "tasks/cancel",
	"notifications/initialized", "notifications/cancelled", "notifications/progress",
	"notifications/roots/list_changed", "notifications/tasks/status",
}
