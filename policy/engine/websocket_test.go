// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
)

func upgrade(path, query string) Request {
	return Request{Method: "GET", Path: path, RawQuery: query, Upgrade: true}
}

func TestWebSocket(t *testing.T) {
	const rules = `
api:
  endpoints:
    - host: h.example
      port: 443
      protocol: websocket
      enforcement: %s
      rules:
        - allow: { method: GET, path: /v1/** }
        - allow: { method: WEBSOCKET_TEXT, path: /v1/chat }
        - allow: { method: "*", path: /v1/room/*, query: { key: "k*" } }
      deny_rules:
        - { method: WEBSOCKET_TEXT, path: /v1/room/admin }
`
	tests := []struct {
		path, query string
		open, text  Decision
		inspect     bool
	}{
		{"/v1/chat", "", Allow, Allow, false},
		{"/v1/other", "", Allow, Deny, true},
		{"/v2", "", Deny, Deny, true},
		{"/v1/room/a", "key=k1", Allow, Allow, false},
		{"/v1/room/a", "key=x", Allow, Deny, true},
		{"/v1/room/admin", "key=k1", Allow, Deny, true},
	}
	for _, enforcement := range []string{"enforce", "audit"} {
		m := connect(t, engine(t, fmt.Sprintf(rules, enforcement)))
		want := func(d Decision) Decision {
			if d == Deny && enforcement == "audit" {
				return Audit
			}
			return d
		}
		for _, tt := range tests {
			r := upgrade(tt.path, tt.query)
			if v := m.Request(r); v.Decision != want(tt.open) || v.Protocol != "websocket" {
				t.Errorf("%s: open %s?%s: %+v", enforcement, tt.path, tt.query, v)
			}
			if i := m.Inspection(r); i.Text != tt.inspect || i.MaxBody != 0 {
				t.Errorf("%s: %s: %+v", enforcement, tt.path, i)
			}
			if v := m.Text(r, []byte("hello")); v.Decision != want(tt.text) {
				t.Errorf("%s: text on %s: %+v", enforcement, tt.path, v)
			}
			if v := m.Text(r, []byte("\xff")); v.Decision != Deny || !v.Malformed {
				t.Errorf("%s: invalid text on %s: %+v", enforcement, tt.path, v)
			}
		}
	}
	m := connect(t, engine(t, fmt.Sprintf(rules, "enforce")))
	checkVerdict(t, m.Text(upgrade("/v1/other", ""), []byte("x")), contentCase{want: Deny,
		reason: "WEBSOCKET_TEXT /v1/other not permitted by policy", missing: []policy.L7Match{{Method: "WEBSOCKET_TEXT", Path: "/v1/other"}}})
	checkVerdict(t, m.Text(upgrade("/v1/room/admin", "key=k"), []byte("x")), contentCase{want: Deny, reason: "WEBSOCKET_TEXT /v1/room/admin blocked by deny rule"})
}

func TestWebSocketPresets(t *testing.T) {
	for access, want := range map[string]Decision{"read-only": Deny, "read-write": Allow, "full": Allow} {
		m := connect(t, engine(t, fmt.Sprintf("r:\n  endpoints: [{ host: h.example, port: 443, protocol: websocket, enforcement: enforce, access: %s }]", access)))
		r := upgrade("/", "")
		if v := m.Request(r); v.Decision != Allow {
			t.Errorf("%s: %+v", access, v)
		}
		if v := m.Text(r, nil); v.Decision != want {
			t.Errorf("%s: text: %+v", access, v)
		}
		if v := m.Request(Request{Method: "POST", Path: "/"}); (v.Decision == Allow) != (access == "full") {
			t.Errorf("%s: POST: %+v", access, v)
		}
	}
}

// GraphQL over WebSocket, by both kinds of endpoint that decide it.
func TestGraphQLOverWebSocket(t *testing.T) {
	for _, rules := range []string{`
r:
  endpoints:
    - host: h.example
      port: 443
      protocol: websocket
      enforcement: audit
      rules:
        - allow: { method: GET, path: /graphql }
        - allow: { operation_type: subscription, fields: [messageAdded] }
`, `
r:
  endpoints:
    - host: h.example
      port: 443
      protocol: graphql
      enforcement: audit
      rules:
        - allow: { operation_type: subscription, fields: [messageAdded] }
`} {
		m := connect(t, engine(t, rules))
		r := upgrade("/graphql", "token=1")
		if v := m.Request(r); v.Decision != Allow {
			t.Fatalf("open: %+v", v)
		}
		if i := m.Inspection(r); !i.Text || i.MaxBody != 0 {
			t.Errorf("%+v", i)
		}
		operation := func(kind, query string) string {
			return fmt.Sprintf(`{"id":"1","type":%q,"payload":%s}`, kind, envelope(query))
		}
		for message, want := range map[string]Decision{
			operation("subscribe", "subscription { messageAdded }"):    Allow,
			operation("start", "subscription { messageAdded }"):        Allow,
			operation("subscribe", "subscription { other }"):           Audit,
			operation("start", "mutation { messageAdded }"):            Audit,
			`{"type":"connection_init","payload":{"authToken":"x"}}`:   Allow,
			`{"type":"connection_terminate"}`:                          Allow,
			`{"type":"ping"}`:                                          Allow,
			`{"type":"pong","payload":{}}`:                             Allow,
			`{"type":"complete","id":"1"}`:                             Allow,
			`{"type":"stop","id":"1"}`:                                 Allow,
			operation("subscribe", "subscription {"):                   Deny,
			operation("next", "subscription { messageAdded }"):         Deny,
			`{"type":"subscribe","payload":` + envelope("{ a }") + "}": Deny,
			`{"type":"subscribe","id":"1"}`:                            Deny,
			`{"type":"subscribe","id":"1","payload":[]}`:               Deny,
			`{"type":"ping","Type":"subscribe","id":"1"}`:              Deny,
			`{"type":"ping","type":"subscribe"}`:                       Deny,
			`{"id":"1"}`:                                               Deny,
			`[{"type":"ping"}]`:                                        Deny,
			"hello":                                                    Deny,
			"":                                                         Deny,
		} {
			v := m.Text(r, []byte(message))
			if v.Decision != want || v.Malformed != (want == Deny) || (want == Audit) != (len(v.Missing) == 1) {
				t.Errorf("%s: %+v, want %v", message, v, want)
			}
			if want == Deny && !strings.HasPrefix(v.Reason, "GraphQL WebSocket message rejected: ") {
				t.Errorf("%s: %s", message, v.Reason)
			}
		}
	}
}

// A WebSocket is no way around the rules on calls.
func TestCallsOverWebSocket(t *testing.T) {
	m := connect(t, engine(t, mcpRule))
	r := upgrade("/mcp", "")
	r.Body = []byte{}
	if i := m.Inspection(r); !i.Text {
		t.Errorf("%+v", i)
	}
	if v := m.Text(r, []byte(tool("read_status"))); v.Decision != Allow {
		t.Errorf("%+v", v)
	}
	if v := m.Text(r, []byte(tool("delete"))); v.Decision != Deny || len(v.Missing) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestInspection(t *testing.T) {
	m := connect(t, engine(t, `
r:
  endpoints:
    - { host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full }
    - { host: h.example, port: 443, path: /graphql, protocol: graphql, enforcement: enforce, access: full, graphql_max_body_bytes: 1000 }
    - { host: h.example, port: 443, path: /rpc, protocol: json-rpc, enforcement: enforce, rules: [{ allow: { method: x } }], json_rpc: { max_body_bytes: 2000 } }
    - { host: h.example, port: 443, path: /mcp, protocol: mcp, enforcement: enforce, mcp: { allow_all_known_mcp_methods: true } }
    - { host: h.example, port: 443, path: /ws, protocol: websocket, enforcement: enforce, access: full }
`))
	tests := map[string]Inspection{
		"POST /x":       {},
		"GET /x":        {},
		"POST /graphql": {MaxBody: 1000, Text: true},
		"GET /graphql":  {Text: true},
		"POST /rpc":     {MaxBody: 2000, Text: true},
		"POST /mcp":     {MaxBody: 65536, Text: true},
		"GET /mcp":      {MaxBody: 65536, Text: true},
		"DELETE /mcp":   {Text: true},
		"GET /ws":       {},
	}
	for request, want := range tests {
		method, path, _ := strings.Cut(request, " ")
		if got := m.Inspection(Request{Method: method, Path: path}); got != want {
			t.Errorf("%s: %+v, want %+v", request, got, want)
		}
	}
	if got := (Match{}).Inspection(Request{Method: "POST", Path: "/graphql"}); got != (Inspection{}) {
		t.Errorf("denied connection: %+v", got)
	}
}
