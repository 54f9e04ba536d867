// SPDX-License-Identifier: Apache-2.0

package engine

import "openshell.ai/openshell/policy"

// mcp reads JSON-RPC with what MCP's schema adds.
var mcp = inspector{
	rules: func(source *policy.Endpoint, allowed []policy.L7Match) (contentRules, error) {
		rules := &callRules{
			strict:     source.StrictToolNames(),
			known:      source.AllowsKnownMCPMethods(),
			restricted: source.RestrictsTools(),
		}
		return compileCalls(rules, source, allowed)
	},
	sees:    callsSeen,
	request: func(m Match, c coverage, r Request) Verdict { return m.decideCalls(&c, &r, true) },
	message: func(m Match, c coverage, r Request, message []byte) Verdict {
		return m.decideMessages(&c, &r, message, true)
	},
}

// knownMCPMethods are the requests and notifications that MCP defines for
// clients, in its revisions from 2025-03-26 to 2025-11-25.
var knownMCPMethods = []string{
	"initialize", "ping", "logging/setLevel", "completion/complete",
	"tools/list", policy.MethodToolsCall,
	"resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
	"prompts/list", "prompts/get",
	"tasks/get", "tasks/result", "tasks/list", "tasks/cancel",
	"notifications/initialized", "notifications/cancelled", "notifications/progress",
	"notifications/roots/list_changed", "notifications/tasks/status",
}
