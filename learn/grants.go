package learn

import (
	"encoding/json"
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
			grants = append(grants, grant(e, &e.Rules[j].Allow))
		}
	}
	return grants
}

func grant(e *policy.Endpoint, m *policy.L7Match) string {
	if m.Path != "" {
		return m.Method + " " + m.Path
	}
	data, err := json.Marshal(m)
	if err != nil {
		return e.Protocol
	}
	text := strings.NewReplacer(`{"`, "", `"}`, "", `":"`, " ", `","`, ", ", `":`, " ", `,"`, ", ").Replace(string(data))
	return strings.TrimSpace(e.Protocol + " " + text)
}
