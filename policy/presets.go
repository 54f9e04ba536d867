// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// presets are what the access values stand for in rest. DELETE is not part of
// read-write.
var presets = map[string][]L7Match{
	AccessReadOnly:  methods("GET", "HEAD", "OPTIONS"),
	AccessReadWrite: methods("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"),
	AccessFull:      methods("*"),
}

var websocketPresets = map[string][]L7Match{
	AccessReadOnly:  methods("GET"),
	AccessReadWrite: methods("GET", MethodWebSocketText),
	AccessFull:      methods("*"),
}

var graphqlPresets = map[string][]L7Match{
	AccessReadOnly:  {{OperationType: "query"}},
	AccessReadWrite: {{OperationType: "query"}, {OperationType: "mutation"}},
	AccessFull:      {{OperationType: "*"}},
}

// Allowed returns what an inspected endpoint allows: its rules, or what its
// access stands for.
func (e *Endpoint) Allowed() []L7Match {
	switch {
	case e.Access != "" && e.Protocol == ProtocolGraphQL:
		return graphqlPresets[e.Access]
	case e.Access != "" && e.Protocol == ProtocolWebSocket:
		return websocketPresets[e.Access]
	case e.Access != "":
		return presets[e.Access]
	}
	allowed := make([]L7Match, len(e.Rules))
	for i := range e.Rules {
		allowed[i] = e.Rules[i].Allow
	}
	return allowed
}

func methods(names ...string) []L7Match {
	matches := make([]L7Match, len(names))
	for i, name := range names {
		matches[i] = L7Match{Method: name, Path: "**"}
	}
	return matches
}

// MethodMatches lets GET cover HEAD, which differs only in having no response
// body (RFC 9110 section 9.3.2).
func MethodMatches(want, method string) bool {
	return want == "*" || strings.EqualFold(want, method) ||
		strings.EqualFold(want, "GET") && strings.EqualFold(method, "HEAD")
}
