// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
)

// rpc is a JSON-RPC request's JSON; params may be empty.
func rpc(method, params string) string {
	if params != "" {
		params = `,"params":` + params
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q%s}`, method, params)
}

func tool(name string) string {
	return rpc("tools/call", fmt.Sprintf(`{"name":%q,"arguments":{"name":"x"}}`, name))
}

func TestJSONRPC(t *testing.T) {
	m := connect(t, engine(t, `
api:
  endpoints:
    - host: h.example
      port: 443
      path: /rpc
      protocol: json-rpc
      enforcement: enforce
      rules:
        - allow: { method: eth_call }
        - allow: { method: a.b }
      deny_rules:
        - { method: admin }
    - { host: h.example, port: 443, path: /all, protocol: json-rpc, enforcement: enforce, rules: [{ allow: { method: "*" } }], deny_rules: [{ method: admin }] }
    - { host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full }
`))
	missing := func(methods ...string) (all []policy.L7Match) {
		for _, method := range methods {
			all = append(all, policy.L7Match{Method: method})
		}
		return all
	}
	checkContent(t, m, []contentCase{
		{"allowed", post("/rpc", rpc("eth_call", "[1,2]")), Allow, "", nil},
		{"notification", post("/rpc", `{"jsonrpc":"2.0","method":"a.b"}`), Allow, "", nil},
		{"not allowed", post("/rpc", rpc("eth_send", "")), Deny, "POST /rpc not permitted by policy: eth_send", missing("eth_send")},
		{"case matters", post("/rpc", rpc("ETH_CALL", "")), Deny, "POST /rpc not permitted by policy", missing("ETH_CALL")},
		{"batch", post("/rpc", "["+rpc("eth_call", "")+","+rpc("a.b", "{}")+"]"), Allow, "", nil},
		{"one of a batch", post("/rpc", "["+rpc("eth_call", "")+","+rpc("x", "")+","+rpc("y", "")+","+rpc("x", "")+"]"), Deny, "POST /rpc not permitted by policy: x", missing("x", "y")},
		{"denied in a batch", post("/all", "["+rpc("x", "")+","+rpc("admin", "")+"]"), Deny, "POST /all blocked by deny rule: admin", nil},
		{"any", post("/all", rpc("x", "")), Allow, "", nil},
		{"response", post("/all", `{"jsonrpc":"2.0","id":1,"result":{}}`), Deny, "JSON-RPC response frames are not permitted from client to server", nil},
		{"what no rule can name", post("/rpc", rpc("eth_*", "")), Deny, "POST /rpc not permitted by policy: eth_*", nil},
		{"too long to name", post("/rpc", rpc(strings.Repeat("x", 300), "")), Deny, "POST /rpc not permitted by policy: xxx", nil},
		{"stream", Request{Method: "GET", Path: "/rpc", Body: []byte{}}, Allow, "", nil},
		{"PUT", Request{Method: "PUT", Path: "/all", Body: []byte(rpc("x", ""))}, Deny, "PUT /all not permitted by policy", nil},
		{"body not seen", Request{Method: "POST", Path: "/rpc"}, Deny, "protocol json-rpc decides by the body", nil},
		{"body of a GET not seen", Request{Method: "GET", Path: "/rpc"}, Deny, "protocol json-rpc decides by the body", nil},
		{"another path is REST", Request{Method: "POST", Path: "/x"}, Allow, "", nil},
	})
}

func TestJSONRPCMalformed(t *testing.T) {
	m := connect(t, engine(t, `
api:
  endpoints: [{ host: h.example, port: 443, protocol: json-rpc, rules: [{ allow: { method: "*" } }] }]
`))
	tests := map[string]string{
		"":                                       "not valid JSON",
		"x":                                      "not valid JSON",
		"1":                                      "must be an object",
		"[]":                                     "empty batch",
		"[[" + rpc("x", "") + "]]":               "must be an object",
		`{"id":1,"method":"x"}`:                  `"jsonrpc" must be "2.0"`,
		`{"jsonrpc":"1.0","id":1,"method":"x"}`:  `"jsonrpc" must be "2.0"`,
		`{"jsonrpc":"2.0","id":1}`:               `missing or non-string "method"`,
		`{"jsonrpc":"2.0","id":1,"method":null}`: `missing or non-string "method"`,
		`{"jsonrpc":"2.0","id":1,"method":["x"]}`:                   `"method" must be a string`,
		`{"jsonrpc":"2.0","id":{},"method":"x"}`:                    `"id" must be`,
		`{"jsonrpc":"2.0","id":1,"method":"x","result":1}`:          "both method and result/error",
		`{"jsonrpc":"2.0","id":1,"result":1,"error":{}}`:            "both result and error",
		`{"jsonrpc":"2.0","result":1}`:                              "missing id",
		`{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}`:        "repeated key method",
		`{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}`:        "only in case",
		`{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}`:        `"params" must be`,
		`{"jsonrpc":"2.0","id":1,"method":"x\ud800"}`:               "invalid character",
		rpc("x", "") + rpc("y", ""):                                 "not valid JSON",
		rpc("x", `{"a":{"b":1,"b":2}}`):                             "repeated key b",
		rpc("x", strings.Repeat("[", 200)+strings.Repeat("]", 200)): "nested deeper",
		"[" + rpc("x", "") + `,{"jsonrpc":"2.0"}]`:                  "batch item invalid",
		"\xef\xbb\xbf" + rpc("x", ""):                               "not valid JSON",
		`{"jsonrpc":"2.0","id":1,"method":"` + "\xff" + `"}`:        "not valid UTF-8",
	}
	for body, reason := range tests {
		v := m.Request(post("/", body))
		if v.Decision != Deny || !v.Malformed || !strings.HasPrefix(v.Reason, "JSON-RPC request rejected: ") || !strings.Contains(v.Reason, reason) {
			t.Errorf("%.80q: %+v, want %s", body, v, reason)
		}
	}
	r := post("/", rpc("x", ""))
	if v := m.Request(r); v.Decision != Allow {
		t.Errorf("%+v", v)
	}
	r.ContentType = "text/plain"
	if v := m.Request(r); !v.Malformed {
		t.Errorf("text/plain: %+v", v)
	}
	if v := m.Request(Request{Method: "GET", Path: "/", Body: []byte(rpc("x", ""))}); !v.Malformed {
		t.Errorf("GET with a body: %+v", v)
	}
}

// What cannot be read is denied in every mode: a deny rule that is only logged,
// or another call of the batch that is, does not change that.
func TestMalformedCallsAreDeniedInEveryMode(t *testing.T) {
	m := connect(t, engine(t, `
api:
  endpoints:
    - { host: h.example, port: 443, protocol: rest, enforcement: audit, access: full, deny_rules: [{ method: "*", path: /rpc }] }
    - { host: h.example, port: 443, path: /rpc, protocol: json-rpc, enforcement: audit, rules: [{ allow: { method: a } }] }
    - { host: h.example, port: 443, path: /mcp, protocol: mcp, enforcement: audit, rules: [{ allow: { method: tools/call, tool: a } }], deny_rules: [{ method: ping }] }
`))
	ping, odd := rpc("ping", "{}"), tool("a b")
	for _, tt := range []struct {
		path, body string
		malformed  bool
	}{
		{"/rpc", rpc("a", ""), false},
		{"/rpc", "x", true},
		{"/mcp", ping, false},
		{"/mcp", "[" + ping + "," + tool("a") + "]", false},
		{"/mcp", "[" + ping + "," + odd + "]", true},
		{"/mcp", "[" + odd + "," + ping + "]", true},
	} {
		want := Audit
		if tt.malformed {
			want = Deny
		}
		if v := m.Request(post(tt.path, tt.body)); v.Decision != want || v.Malformed != tt.malformed {
			t.Errorf("%s %s: %+v", tt.path, tt.body, v)
		}
	}
}

const mcpRule = `
api:
  endpoints:
    - host: h.example
      port: 443
      path: /mcp
      protocol: mcp
      enforcement: enforce
      rules:
        - allow: { method: initialize }
        - allow: { method: notifications/initialized }
        - allow: { method: tools/call, tool: read_status }
        - allow: { method: tools/call, tool: { any: [list_*, search] } }
        - allow: { method: tools/call, params: { name: by_params } }
      deny_rules:
        - { method: tools/call, tool: list_secrets }
`

func TestMCP(t *testing.T) {
	m := connect(t, engine(t, mcpRule))
	call := func(tool string) []policy.L7Match {
		return []policy.L7Match{{Method: "tools/call", Tool: policy.Matcher{Any: []string{tool}}}}
	}
	checkContent(t, m, []contentCase{
		{"method", post("/mcp", rpc("initialize", `{"protocolVersion":"2025-11-25"}`)), Allow, "", nil},
		{"notification", post("/mcp", `{"jsonrpc":"2.0","method":"notifications/initialized"}`), Allow, "", nil},
		{"another method", post("/mcp", rpc("tools/list", "")), Deny, "POST /mcp not permitted by policy: tools/list", []policy.L7Match{{Method: "tools/list"}}},
		{"tool", post("/mcp", tool("read_status")), Allow, "", nil},
		{"tool by glob", post("/mcp", tool("list_issues")), Allow, "", nil},
		{"tool by params", post("/mcp", tool("by_params")), Allow, "", nil},
		{"a glob stops at a dot", post("/mcp", tool("list_a.b")), Deny, "POST /mcp not permitted by policy: tools/call list_a.b", call("list_a.b")},
		{"denied tool", post("/mcp", tool("list_secrets")), Deny, "POST /mcp blocked by deny rule: tools/call list_secrets", nil},
		{"another tool", post("/mcp", tool("delete")), Deny, "POST /mcp not permitted by policy: tools/call delete", call("delete")},
		{"one of a batch", post("/mcp", "["+tool("search")+","+tool("delete")+","+rpc("ping", "")+"]"), Deny, "POST /mcp not permitted by policy: tools/call delete",
			append(call("delete"), policy.L7Match{Method: "ping"})},
		{"response", post("/mcp", `{"jsonrpc":"2.0","id":7,"result":{}}`), Allow, "", nil},
		{"stream", Request{Method: "GET", Path: "/mcp", Body: []byte{}}, Allow, "", nil},
		{"another path", Request{Method: "GET", Path: "/x"}, Deny, "GET /x did not match an L7 endpoint path", nil},
	})
	for body, reason := range map[string]string{
		rpc("tools/call", ""):                             `needs "params"`,
		rpc("tools/call", "{}"):                           `needs "params"`,
		rpc("tools/call", "[1]"):                          `"params" must be an object`,
		rpc("tools/call", `{"name":1}`):                   `"name" must be a string`,
		rpc("tools/call", `{"name":"search","Name":"x"}`): "only in case",
		tool("a b"):                    "MCP tool name must match",
		tool(strings.Repeat("x", 129)): "MCP tool name must match",
		tool("../x"):                   "MCP tool name must match",
	} {
		if v := m.Request(post("/mcp", body)); v.Decision != Deny || !v.Malformed || !strings.Contains(v.Reason, reason) {
			t.Errorf("%.80s: %+v, want %s", body, v, reason)
		}
	}
}

func TestMCPOptions(t *testing.T) {
	rule := func(fields string) Match {
		return connect(t, engine(t, "r:\n  endpoints: [{ host: h.example, port: 443, protocol: mcp, enforcement: enforce, "+fields+" }]"))
	}
	tests := []struct{ fields, allowed, denied string }{
		// All of MCP's own methods, and nothing of an extension.
		{"mcp: { allow_all_known_mcp_methods: true }", "initialize tools/list tool:anything ping resources/read", "x/y tools/other"},
		// Rules that name tools restrict tools/call.
		{"mcp: { allow_all_known_mcp_methods: true }, rules: [{ allow: { tool: search } }]", "initialize tool:search ping", "tool:delete x/y"},
		{"mcp: { allow_all_known_mcp_methods: true }, deny_rules: [{ tool: delete }, { method: resources/read }]", "initialize tool:search", "tool:delete resources/read"},
		{`rules: [{ allow: { method: "tools/*" } }]`, "tools/list tool:x tools/other", "initialize"},
		{`rules: [{ allow: { method: x/y } }, { allow: { method: tools/call } }]`, "x/y tool:x", "tools/list x/z"},
		{`mcp: { strict_tool_names: false }, rules: [{ allow: { method: tools/call, tool: "a b" } }]`, "", "tool:x"},
	}
	for _, tt := range tests {
		m := rule(tt.fields)
		check := func(names string, want Decision) {
			for name := range strings.FieldsSeq(names) {
				body := rpc(name, "")
				if called, ok := strings.CutPrefix(name, "tool:"); ok {
					body = tool(called)
				}
				if v := m.Request(post("/", body)); v.Decision != want {
					t.Errorf("%s: %s: %+v", tt.fields, name, v)
				}
			}
		}
		check(tt.allowed, Allow)
		check(tt.denied, Deny)
	}
	m := rule(`mcp: { strict_tool_names: false }, rules: [{ allow: { method: tools/call, tool: "a b" } }]`)
	if v := m.Request(post("/", tool("a b"))); v.Decision != Allow {
		t.Errorf("not strict: %+v", v)
	}
	// A name that looks like a wildcard is not proposed as one.
	if v := m.Request(post("/", tool("a*"))); v.Decision != Deny || v.Malformed || v.Missing != nil {
		t.Errorf("wildcard: %+v", v)
	}
}
