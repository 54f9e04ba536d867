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

// MethodToolsCall is MCP's method by which tools are called.
const MethodToolsCall = "tools/call"

// mcp is the Model Context Protocol, decided per call and tool.
var mcp = Protocol{
	Name:      ProtocolMCP,
	Rank:      3,
	Content:   true,
	Malformed: jsonRPC.Malformed,
	options: []option{{
		name:   "mcp",
		given:  func(e *Endpoint) bool { return e.MCP != nil },
		decode: func(d *decoder, to *Endpoint) field { return d.mcp(&to.MCP) },
	}},
	fields: []matchField{{
		name:    "tool",
		present: func(m *L7Match) bool { return !m.Tool.IsZero() },
		refused: "MCP tool matching is only valid for protocol mcp, not %s",
		decode: func(d *decoder, to *L7Match) field {
			return func(n *yaml.Node, path string) { to.Tool = d.matcher(n, path) }
		},
		words: func(m *L7Match) string { return strings.Join(m.Tool.Any, "|") },
	}, {
		name:    "params",
		present: func(m *L7Match) bool { return m.Params != nil },
		refused: "params matching is only valid for protocol mcp, not %s",
		decode: func(d *decoder, to *L7Match) field {
			return func(n *yaml.Node, path string) {
				params := map[string]Matcher{}
				if d.params(n, path, "", params); len(params) > 0 {
					to.Params = params
				}
			}
		},
		words: func(m *L7Match) string {
			var words []string
			for _, key := range slices.Sorted(maps.Keys(m.Params)) {
				words = append(words, key+"="+strings.Join(m.Params[key].Any, "|"))
			}
			return strings.Join(words, " ")
		},
	}},
	alsoOf:    []string{"method"},
	noPresets: "protocol mcp does not support access presets; use rules/deny_rules or set mcp.allow_all_known_mcp_methods: true for an allow-all MCP policy",
	noRules: func(e *Endpoint) (field, reason string) {
		if e.AllowsKnownMCPMethods() {
			return "", ""
		}
		return "rules", "protocol mcp requires rules when mcp.allow_all_known_mcp_methods is false"
	},
	maxBody: func(e *Endpoint) uint32 {
		if e.MCP == nil {
			return 0
		}
		return e.MCP.MaxBodyBytes
	},
	traits: func(e *Endpoint) []trait {
		return []trait{{"max_body_bytes", e.MaxBody()}, {"mcp.strict_tool_names", e.StrictToolNames()}}
	},
	unused: func(v *validator, path string, e *Endpoint) {
		switch {
		case e.MCP.StrictToolNames != nil:
			v.problem(path+".mcp.strict_tool_names", "mcp.strict_tool_names is only valid for protocol mcp")
		case e.MCP.AllowAllKnownMCPMethods:
			v.problem(path+".mcp.allow_all_known_mcp_methods", "mcp.allow_all_known_mcp_methods is only valid for protocol mcp")
		default:
			v.warn(path+".mcp", "is ignored unless protocol is mcp")
		}
	},
	check: func(v *validator, path string, e *Endpoint) {
		if e.Host == "" {
			v.problem(path+".host", "protocol mcp requires host; protocol alone is not a wildcard endpoint")
		}
		if e.RestrictsTools() {
			v.toolConflicts(path, e)
		}
	},
	checkMatch: func(v *validator, path string, e *Endpoint, m *L7Match) { v.mcpCall(path, e, m) },
	fit: func(e *Endpoint) {
		odd := func(r L7Allow) bool {
			return slices.ContainsFunc(r.Allow.ToolMatcher().Any, func(name string) bool { return !StrictToolName(name) })
		}
		if slices.ContainsFunc(e.Rules, odd) {
			if e.MCP == nil {
				e.MCP = &MCPOptions{}
			}
			e.MCP.StrictToolNames = new(bool)
		}
	},
}

// StrictToolName reports whether a tool's name is of the form that MCP
// recommends (2025-11-25, server/tools, tool names).
func StrictToolName(name string) bool {
	const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	return name != "" && len(name) <= 128 && strings.Trim(name, chars) == ""
}

// ToolMatcher returns the matcher of MCP tools in either of its forms.
func (m *L7Match) ToolMatcher() Matcher {
	if !m.Tool.IsZero() {
		return m.Tool
	}
	return m.Params["name"]
}

// RestrictsTools reports whether rules name MCP tools, so that others are not
// allowed.
func (e *Endpoint) RestrictsTools() bool {
	return slices.ContainsFunc(e.Rules, func(r L7Allow) bool { return !r.Allow.ToolMatcher().IsZero() })
}

func (e *Endpoint) AllowsKnownMCPMethods() bool { return e.MCP != nil && e.MCP.AllowAllKnownMCPMethods }

func (e *Endpoint) StrictToolNames() bool {
	return e.MCP == nil || e.MCP.StrictToolNames == nil || *e.MCP.StrictToolNames
}

func (d *decoder) mcp(to **MCPOptions) field {
	return func(n *yaml.Node, path string) {
		var options MCPOptions
		d.mapping(n, path, map[string]field{
			"max_body_bytes": d.size(&options.MaxBodyBytes),
			"strict_tool_names": func(n *yaml.Node, path string) {
				options.StrictToolNames = new(bool)
				d.boolean(options.StrictToolNames)(n, path)
			},
			"allow_all_known_mcp_methods": d.boolean(&options.AllowAllKnownMCPMethods),
			"versions":                    d.unsupported("versions"),
		})
		if options != (MCPOptions{}) {
			*to = &options
		}
	}
}

// params flattens nested objects to dotted keys.
func (d *decoder) params(n *yaml.Node, path, prefix string, to map[string]Matcher) {
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		name := prefix + key.Value
		switch _, taken := to[name]; {
		case isNested(value):
			d.params(value, at, name+".", to)
		case taken:
			d.problem(key, at, "%s is given twice", printable.Text(name))
		default:
			to[name] = d.matcher(value, at)
		}
	})
}

// isNested tells an object of params from a matcher's long form.
func isNested(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; key == "any" || key == "glob" {
			return false
		}
	}
	return true
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
