// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	rules "openshell.ai/openshell/policy"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// declared allows a little of each protocol.
const declared = `version: 1
network_policies:
  declared:
    binaries: [{path: ` + node.ClientPath + `}]
    endpoints:
      - {host: api.github.example, port: 443, path: /graphql, protocol: graphql, enforcement: enforce,
         rules: [{allow: {operation_type: query, fields: [viewer]}}]}
      - {host: api.github.example, port: 443, path: /rpc, protocol: json-rpc, enforcement: enforce,
         rules: [{allow: {method: eth_call}}]}
      - {host: api.github.example, port: 443, path: /mcp, protocol: mcp, enforcement: enforce,
         rules: [{allow: {method: initialize}}, {allow: {method: tools/call, tool: search}}]}
      - {host: stream.example, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /svc/Echo}}]}
      - {host: web.example, port: 80, protocol: websocket, enforcement: enforce,
         rules: [{allow: {method: GET, path: /ws}}]}
      - {host: web.example, port: 8080, protocol: websocket, enforcement: enforce,
         rules: [{allow: {method: GET, path: /ws}}, {allow: {method: WEBSOCKET_TEXT, path: /ws}}]}
      - {host: cdn.example, port: 443, path: /ws, protocol: graphql, enforcement: enforce,
         rules: [{allow: {operation_type: subscription, fields: [news]}}]}
`

const (
	graphQL = "https://" + fakenet.GitHubHost + "/graphql"
	rpc     = "https://" + fakenet.GitHubHost + "/rpc"
	mcp     = "https://" + fakenet.GitHubHost + "/mcp"
)

func post(url, body string) []string {
	return []string{"get", "-X", "POST", "-H", "Content-Type: application/json", "-d", body, url}
}

// gql, initialise and so on are what clients of the protocols send.
func gql(query string) []string { return post(graphQL, `{"query":"`+query+`"}`) }

func call(method string) string { return `{"jsonrpc":"2.0","id":1,"method":"` + method + `"}` }

func tool(name string) string {
	return `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"` + name + `","arguments":{}}}`
}

// protocolCases are actions within the declared policy, and beyond it.
var protocolCases = []struct {
	name     string
	argv     []string
	allowed  bool
	protocol string // of the endpoint that refuses
}{
	{"graphql query", gql("{viewer{login}}"), true, ""},
	{"graphql query of another field", gql("{secrets{value}}"), false, "graphql"},
	{"graphql alias of another field", gql("{viewer:secrets{value}}"), false, "graphql"},
	{"graphql field within a fragment", gql("query{...f} fragment f on Query{secrets{value}}"), false, "graphql"},
	{"graphql mutation", gql("mutation{viewer{login}}"), false, "graphql"},
	{"graphql batch with one refused", post(graphQL, `[{"query":"{viewer{login}}"},{"query":"{secrets}"}]`), false, "graphql"},
	{"json-rpc", post(rpc, call("eth_call")), true, ""},
	{"json-rpc, another method", post(rpc, call("eth_sendTransaction")), false, "json-rpc"},
	{"json-rpc batch with one refused", post(rpc, "["+call("eth_call")+","+call("eth_sign")+"]"), false, "json-rpc"},
	{"mcp", post(mcp, call("initialize")), true, ""},
	{"mcp tool", post(mcp, tool("search")), true, ""},
	{"mcp, another tool", post(mcp, tool("delete_everything")), false, "mcp"},
}

func TestDeclaredProtocols(t *testing.T) {
	t.Parallel()
	p := newPair(t, declared)
	for _, tt := range protocolCases {
		p.Net.Reset()
		r := p.enforcing.Client(tt.argv...)
		if tt.allowed {
			if r.Status != http.StatusOK {
				t.Errorf("%s, enforcing: %d %s", tt.name, r.Status, r.Body)
			}
		} else {
			body := refused(t, r, http.StatusForbidden)
			if body.Protocol != tt.protocol || body.Error != "policy_denied" {
				t.Errorf("%s: %s", tt.name, r.Body)
			}
			p.Unseen(fakenet.GitHubHost)
		}
		if r := p.permissive.Client(tt.argv...); r.Status != http.StatusOK {
			t.Errorf("%s, permissive: %d %s", tt.name, r.Status, r.Body)
		}
	}
	// What cannot be read is refused in both modes.
	for _, c := range []*node.Container{p.enforcing, p.permissive} {
		for url, body := range map[string]string{
			graphQL: `{"query":"{viewer"}`,
			rpc:     `{"jsonrpc":"2.0","id":1,"method":"eth_call","method":"eth_sign"}`,
			mcp:     `{"jsonrpc":`,
		} {
			p.Net.Reset()
			refused(t, c.Client(post(url, body)...), http.StatusBadRequest)
			p.Unseen(fakenet.GitHubHost)
		}
	}
}

func TestLearnsExactlyWhatWasMissing(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("declared", declared)
	sender := []string{"ws", "ws://" + fakenet.WebHost + "/ws", "hello"}
	first := w.Container(node.Policy("declared"), node.Permissive).Start()
	for _, tt := range protocolCases {
		if r := first.Client(tt.argv...); r.Status != http.StatusOK {
			t.Errorf("%s: %d %s", tt.name, r.Status, r.Body)
		}
	}
	if r := first.Client(sender...); !r.OK || !slices.Equal(r.Messages, []string{"hello"}) {
		t.Errorf("a message: %+v", r)
	}
	first.Delete()
	w.Operate("approve", "declared", "--all")

	second := w.Container(node.Policy("declared")).Start()
	for _, tt := range protocolCases {
		if r := second.Client(tt.argv...); r.Status != http.StatusOK {
			t.Errorf("%s, approved: %d %s", tt.name, r.Status, r.Body)
		}
	}
	if r := second.Client(sender...); !r.OK {
		t.Errorf("a message, approved: %+v", r)
	}
	if denied := w.Denied(second); len(denied) > 0 {
		t.Errorf("denials: %+v", denied)
	}
	for what, argv := range map[string][]string{
		"another field":  gql("{accounts{id}}"),
		"another type":   gql("mutation{secrets{value}}"),
		"another method": post(rpc, call("eth_accounts")),
		"another tool":   post(mcp, tool("rm")),
		"REST there":     {"get", "https://" + fakenet.GitHubHost + "/user"},
	} {
		refused(t, second.Client(argv...), http.StatusForbidden)
		if t.Failed() {
			t.Fatal(what)
		}
	}
}

func TestWebSocketMessages(t *testing.T) {
	t.Parallel()
	p := newPair(t, declared)
	silent, open := "ws://"+fakenet.WebHost+"/ws", "ws://"+fakenet.WebHost+":8080/ws"
	for _, compress := range []string{"", "-z"} {
		ws := func(url string, texts ...string) []string {
			argv := []string{"ws", url}
			if compress != "" {
				argv = []string{"ws", compress, url}
			}
			return append(argv, texts...)
		}
		long := strings.Repeat("openshell ", 3_000)
		if r := p.enforcing.Client(ws(open, "one", "two", long)...); !r.OK || len(r.Messages) != 3 || r.Messages[2] != long {
			t.Errorf("messages that a rule allows: %d, %s", len(r.Messages), r.Error)
		}
		p.Net.Reset()
		if r := p.enforcing.Client(ws(silent, "one")...); r.Status != http.StatusSwitchingProtocols || r.Close != 1008 || len(r.Messages) > 0 {
			t.Errorf("a message that no rule allows: %+v", r)
		}
		if r := p.permissive.Client(ws(silent, "one")...); !r.OK {
			t.Errorf("permissive: %+v", r)
		}
	}
	if r := p.enforcing.Client("ws", "ws://"+fakenet.WebHost+"/other", "x"); r.Status != http.StatusForbidden {
		t.Errorf("another path: %+v", r)
	}

	// GraphQL over WebSocket (graphql-transport-ws).
	url := "wss://" + fakenet.CDNHost + "/ws"
	subscribe := func(query string) []string {
		return []string{"ws", "-p", "graphql-transport-ws", url, `{"type":"connection_init"}`,
			`{"id":"1","type":"subscribe","payload":{"query":"` + query + `"}}`}
	}
	if r := p.enforcing.Client(subscribe("subscription{news{title}}")...); !r.OK || len(r.Messages) != 2 {
		t.Errorf("subscription: %+v", r)
	}
	if r := p.enforcing.Client(subscribe("subscription{secrets{value}}")...); r.OK || r.Close != 1008 || len(r.Messages) != 1 {
		t.Errorf("another subscription: %+v", r)
	}
}

func TestGRPCIsDecidedByMethod(t *testing.T) {
	t.Parallel()
	p := newPair(t, declared)
	grpc := func(method string) []string {
		return []string{"grpc", fakenet.StreamHost + ":443", method, "one", "two", "three"}
	}
	if r := p.enforcing.Client(grpc("/svc/Echo")...); !r.OK || !slices.Equal(r.Messages, []string{"one", "two", "three"}) {
		t.Errorf("a stream both ways: %+v", r)
	}
	p.Net.Reset()
	if r := p.enforcing.Client(grpc("/svc/Delete")...); r.OK || !strings.Contains(r.Error, "PermissionDenied") {
		t.Errorf("another method: %+v", r)
	}
	p.Unseen(fakenet.StreamHost)
	for _, argv := range [][]string{grpc("/svc/Delete"), {"grpc", "-plain", fakenet.WebHost + ":80", "/svc/Echo", "x"}} {
		if r := p.permissive.Client(argv...); !r.OK {
			t.Errorf("permissive: %+v", r)
		}
	}
	if got := node.Allows(p.ProposalFor("lenient", fakenet.StreamHost)); !slices.Equal(got, []string{"POST /svc/Delete"}) {
		t.Errorf("learned %q", got)
	}
}

func TestUDPIsLearnedAndAllowed(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("udp", noNetwork)
	ask := []string{"udp", "-t", "30s", fakenet.EchoHost + ":7", "hello"}
	first := w.Container(node.Policy("udp"), node.Permissive).Start()
	if r := first.Client(ask...); r.Body != "hello" {
		t.Errorf("permissive: %+v", r)
	}
	p := w.ProposalFor("udp", fakenet.EchoHost)
	if e := p.Rule.Endpoints[0]; e.Protocol != rules.ProtocolUDP || e.Ports[0] != 7 {
		t.Errorf("learned %+v", e)
	}
	first.Delete()
	second := w.Container(node.Policy("udp")).Start()
	if r := second.Client(ask...); r.OK || !strings.Contains(r.Error, "connection refused") {
		t.Errorf("enforcing: %+v", r)
	}
	w.Operate("approve", "udp", p.ID)
	if r := second.Client(ask...); r.Body != "hello" {
		t.Errorf("approved: %+v", r)
	}
	if r := second.Client("tcp", "-t", "5s", fakenet.EchoHost+":7", "hello"); r.OK {
		t.Errorf("TCP to the same port: %+v", r)
	}
}
