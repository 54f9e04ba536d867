// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

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
	globs   []wildcard.Glob // over methods
	tools   map[string]bool
	toolSet wildcard.AffixIndex[wildcard.Glob]
}

func compileCalls(rules *callRules, source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error) {
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

func (s *callSet) add(source *policy.L7Match) error {
	switch tools := source.ToolMatcher(); {
	case !tools.IsZero():
		return s.addTools(tools)
	case source.Method == "*":
		s.all = true
	case wildcard.IsGlob(source.Method):
		g, err := wildcard.CompileGlob(source.Method, '.')
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

func (s *callSet) addTools(tools policy.Matcher) error {
	for _, pattern := range tools.Any {
		if wildcard.IsGlob(pattern) {
			g, err := wildcard.CompileGlob(pattern, '.')
			if err != nil {
				return err
			}
			s.toolSet.Add(g.Affix, g)
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
	return s.all || s.methods[c.method] || wildcard.AnyMatches(s.globs, c.method) ||
		c.method == policy.MethodToolsCall &&
			(s.tools[c.tool] || s.toolSet.Any(c.tool, func(g wildcard.Glob) bool { return g.Match(c.tool) }))
}

func (r *callRules) allows(c call) bool {
	if r.strict && c.tool != "" && !policy.StrictToolName(c.tool) {
		return false
	}
	known := r.known && slices.Contains(knownMCPMethods, c.method) && !(r.restricted && c.method == policy.MethodToolsCall)
	return known || r.allow.match(c)
}
