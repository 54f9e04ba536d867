// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"
)

// Each case is two rules' endpoints; what they disagree on, "" where that is fine.
func TestAmbiguity(t *testing.T) {
	const rest = "protocol: rest, enforcement: enforce, access: full"
	tests := []struct{ first, second, want string }{
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, " + rest, ""},
		{"host: h.example, port: 443, " + rest, "host: H.example., ports: [80, 443], protocol: rest, access: full",
			"network policies 'a' endpoint[0] (h.example) and 'b' endpoint[0] (H.example.) overlap on port 443 with conflicting metadata: enforcement=enforce vs audit"},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 444, protocol: rest, access: full", ""},
		{"host: h.example, port: 443, " + rest, "host: i.example, port: 443, protocol: rest, access: full", ""},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443", ""}, // plain L4 takes no part
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, protocol: tcp", "transparent_tcp_eligible=false vs true"},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, tls: skip", "tls=auto vs skip"},
		{"host: h.example, port: 443", "host: h.example, port: 443, allowed_ips: [10.0.0.1]", "allowed_ips=[] vs [10.0.0.1]"},
		{"host: h.example, port: 443, allowed_ips: [10.0.0.1, 10.0.0.2]", "host: h.example, port: 443, allowed_ips: [10.0.0.2, 10.0.0.1]", ""},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, protocol: graphql, enforcement: enforce, access: full", "protocol=rest vs graphql"},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, path: /graphql, protocol: graphql, access: full", ""}, // more specific
		{"host: h.example, port: 443, path: /a/**, " + rest, "host: h.example, port: 443, path: /b/**, protocol: rest, access: full", ""},
		{"host: h.example, port: 443, path: /a/**, " + rest, "host: h.example, port: 443, path: /a/*, protocol: rest, access: full", "enforcement"},
		{"host: h.example, port: 443, path: /*/ab, " + rest, "host: h.example, port: 443, path: /ab/*, protocol: rest, access: full", "enforcement"},
		{"host: h.example, port: 443, path: /x*y, " + rest, "host: h.example, port: 443, path: /x*z, protocol: rest, access: full", ""},
		{"host: h.example, port: 443, path: '/a?', " + rest, "host: h.example, port: 443, path: /ab, protocol: rest, access: full", "enforcement"},
		{"host: h.example, port: 443, " + rest, "host: h.example, port: 443, " + rest + ", allow_encoded_slash: true", "allow_encoded_slash=false vs true"},
		{"host: api.example.com, port: 443, " + rest, `host: "*.example.com", port: 443, protocol: rest, access: full`, "enforcement"},
		{"host: a.b.example.com, port: 443, " + rest, `host: "*.example.com", port: 443, protocol: rest, access: full`, ""},
		{"host: a.b.example.com, port: 443, " + rest, `host: "**.example.com", port: 443, protocol: rest, access: full`, "enforcement"},
		{`host: "*.x.example.com", port: 443, ` + rest, `host: "a.*.example.com", port: 443, protocol: rest, access: full`, "enforcement"},
		{`host: "a*.example.com", port: 443, ` + rest, `host: "*b.example.com", port: 443, protocol: rest, access: full`, "enforcement"},
		{`host: "a*.example.com", port: 443, ` + rest, `host: "b*.example.com", port: 443, protocol: rest, access: full`, ""},
		{`host: "**.a.example.com", port: 443, ` + rest, `host: "**.example.com", port: 443, protocol: rest, access: full`, "enforcement"},
		{"host: h.example, port: 443", "port: 443, allowed_ips: [10.0.0.1]", "WARN"},
		{"host: a.example.com, port: 443", `host: "*.example.com", port: 443, allowed_ips: [10.0.0.1]`, "WARN"},
		{"host: h.example, port: 443, " + rest, "port: 443, protocol: rest, access: full, allowed_ips: [10.0.0.1]", "<any-host>"},
		{"host: h.example, port: 443, protocol: graphql, access: full, graphql_max_body_bytes: 1", "host: h.example, port: 443, protocol: graphql, access: full", "max_body_bytes=1 vs 65536"},
		{"host: h.example, port: 443, protocol: graphql, access: full, graphql_max_body_bytes: 65536", "host: h.example, port: 443, protocol: graphql, access: full", ""},
		{"host: h.example, port: 443, protocol: mcp, mcp: { allow_all_known_mcp_methods: true, strict_tool_names: false }", "host: h.example, port: 443, protocol: mcp, mcp: { allow_all_known_mcp_methods: true }", "mcp.strict_tool_names=false vs true"},
		{"host: h.example, port: 443, protocol: websocket, rules: [{ allow: { operation_type: query } }]", "host: h.example, port: 443, protocol: websocket, access: full", "websocket_graphql_policy=true vs false"},
		{"host: h.example, port: 443, protocol: udp", "host: h.example, port: 443, allowed_ips: [10.0.0.1]", ""},
	}
	for _, tt := range tests {
		for _, learned := range []string{"", "# openshell.ai/learned\n"} {
			text := "version: 1\nnetwork_policies:\n" + indent(fmt.Sprintf(
				"a:\n  binaries: [{ path: /x }]\n  endpoints: [{ %s }]\n%sb:\n  binaries: [{ path: /y }]\n  endpoints: [{ %s }]", tt.first, learned, tt.second))
			_, warnings, err := Parse([]byte(text))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if tt.want == "WARN" {
				tt.want, learned = "allowed_ips", "# none\n"
			}
			if learned != "" {
				if err != nil {
					t.Errorf("%s beside %s: %v", tt.first, tt.second, err)
				}
				for _, w := range warnings {
					if strings.Contains(w.Reason, "OpenShell itself would refuse") {
						got = w.String()
					}
				}
			}
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%s%s\n%s\ngot %q, want %q", learned, tt.first, tt.second, got, tt.want)
			}
		}
	}
}

func TestAmbiguityIsBounded(t *testing.T) {
	p := &Policy{Version: 1, Network: map[string]*Rule{}}
	for i := range 3000 {
		enforcement := []string{"enforce", "audit"}[i%2]
		p.Network[fmt.Sprint(i)] = &Rule{Endpoints: []Endpoint{{Host: fmt.Sprintf("h%d.example.com", i/2), Port: 443, Protocol: "rest", Access: "full", Enforcement: enforcement}}}
	}
	err := p.Validate().(Errors)
	if len(err) != maxAmbiguities+1 {
		t.Errorf("%d problems", len(err))
	}
}
