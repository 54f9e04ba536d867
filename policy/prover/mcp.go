// SPDX-License-Identifier: Apache-2.0

package prover

import (
	"cmp"

	"openshell.ai/openshell/policy"
)

// takeTool takes what is said of methods, and of tools in either form.
func takeTool(m *requestPattern) error {
	m.special.Method, m.special.Tool = "", policy.Matcher{}
	if _, named := m.source.Params["name"]; named && len(m.source.Params) == 1 {
		m.special.Params = nil
	}
	tools := m.source.ToolMatcher()
	method := m.source.Method
	if !tools.IsZero() {
		method = cmp.Or(method, policy.MethodToolsCall)
	}
	if method != "*" {
		if err := m.require("method", method); err != nil {
			return err
		}
	}
	return m.require("params name", tools.Any...)
}

// toolsExceed: MCP's own methods allow all tools in one, but only some in the maximum.
func toolsExceed(own, maximum *policy.Endpoint) string {
	if own.AllowsKnownMCPMethods() && maximum.RestrictsTools() && !own.RestrictsTools() {
		return "it allows every tool, the maximum only some"
	}
	return ""
}
