// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func TestUpgradeField(t *testing.T) {
	endpoint := func(protocol, rules string) string {
		return "version: 1\nnetwork_policies:\n  r:\n    endpoints: [{host: h.example, port: 80, protocol: " + protocol + ", enforcement: enforce, " + rules + "}]\n"
	}
	for _, tt := range []struct{ protocol, rules, problem string }{
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: [tcp, SPDY/3.1]}}]", ""},
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: []}}]", "must not be empty"},
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: [WebSocket]}}]", "a rule for GET opens it"},
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: [H2C]}}]", "never passed on"},
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: ['a b']}}]", "is not a protocol's name"},
		{"rest", "rules: [{allow: {method: POST, path: /x, upgrade: [a/b/c]}}]", "is not a protocol's name"},
		{"rest", "access: full, deny_rules: [{method: POST, path: /x, upgrade: [tcp]}]", "belongs to rules that allow"},
		{"websocket", "rules: [{allow: {method: GET, path: /x, upgrade: [tcp]}}]", "only valid for protocol rest"},
		{"json-rpc", "rules: [{allow: {method: x, upgrade: [tcp]}}]", "only valid for protocol rest"},
	} {
		p, warnings, err := Parse([]byte(endpoint(tt.protocol, tt.rules)))
		if tt.problem != "" {
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s %s: %v, want %s", tt.protocol, tt.rules, err, tt.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.rules, err)
			continue
		}
		refused := 0
		for _, w := range warnings {
			if w.RefusedByOpenShell() && strings.Contains(w.Field, "allow.upgrade[") {
				refused++
			}
		}
		text, err := Marshal(p)
		if again, _, parseErr := Parse(text); err != nil || parseErr != nil || again.Digest() != p.Digest() || refused != 2 {
			t.Errorf("%s: %v, %v, %v", text, err, parseErr, warnings)
		}
	}
}
