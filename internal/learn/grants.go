// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"

	"openshell.ai/openshell/policy"
)

// Grants are the requests, operations and messages that a rule allows, a few words for each, in the
// rule's order. It is empty for a rule that allows whole connections.
func Grants(rule *policy.Rule) []string {
	var grants []string
	for i := range rule.Endpoints {
		e := &rule.Endpoints[i]
		for j := range e.Rules {
			grants = append(grants, grant(&e.Rules[j].Allow))
		}
	}
	return grants
}

// grant reads "GET /repos/*", "query Q { viewer }", "tools/call search".
func grant(m *policy.L7Match) string {
	words := []string{m.OperationType, m.OperationName, m.Method, m.Path, m.Command}
	if len(m.Fields) > 0 {
		words = append(words, "{ "+strings.Join(m.Fields, " ")+" }")
	}
	words = append(words, strings.Join(m.Tool.Any, "|"))
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
