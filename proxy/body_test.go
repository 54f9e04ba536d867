// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"openshell.ai/openshell/internal/decision"
)

const (
	graphql = "{host: " + weather + ", port: 443, path: /graphql, protocol: graphql, enforcement: enforce, graphql_max_body_bytes: 200, rules: [{allow: {operation_type: query, fields: [user]}}]}"
	jsonrpc = "{host: " + weather + ", port: 443, path: /rpc, protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: sum}}]}"
	mcp     = "{host: " + weather + ", port: 443, path: /mcp, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: look}}]}"

	bodies    = graphql + "\n" + jsonrpc + "\n" + mcp
	queryUser = `{"query":"{ user }"}`
	deleteAll = `{"query":"mutation { deleteAll }"}`
)

func post(r *room, path, body string) *http.Request {
	req := r.request("POST", "https://"+weather+path, body)
	req.Header.Set("Content-Type", "application/json")
	return req
}

func TestBodiesDecide(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, enforcing(bodies))
		c := r.client(http2)
		for _, tt := range []struct {
			path, body string
			status     int
			says       string
		}{
			{"/graphql", queryUser, 200, ""},
			{"/graphql", deleteAll, 403, `"type":"graphql_allow"`},
			{"/graphql", deleteAll, 403, `"allow":[{"operation_type":"mutation","fields":["deleteAll"]}]`},
			{"/graphql", "{", 400, `"error":"invalid_graphql_request"`},
			{"/graphql", "", 400, `"error":"invalid_graphql_request"`},
			{"/graphql", `{"query":"{ user }","variables":{"x":"` + strings.Repeat("x", 200) + `"}}`, 413, `"error":"request_body_too_large"`},
			{"/rpc", `{"jsonrpc":"2.0","id":1,"method":"sum"}`, 200, ""},
			{"/rpc", `{"jsonrpc":"2.0","id":1,"method":"drop"}`, 403, `"type":"jsonrpc_allow"`},
			{"/rpc", `[{"jsonrpc":"2.0","id":1,"method":"sum"},{"jsonrpc":"2.0","id":2,"method":"drop"}]`, 403, `"protocol":"json-rpc"`},
			{"/rpc", `{"jsonrpc":"2.0","id":1,"method":"sum"}x`, 400, `"error":"invalid_jsonrpc_request"`},
			{"/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}`, 200, ""},
			{"/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"rm"}}`, 403, `"type":"mcp_allow"`},
		} {
			for _, chunked := range []bool{false, true} {
				req := post(r, tt.path, tt.body)
				if chunked {
					req.ContentLength = -1
				}
				before := len(internet.Requests())
				resp := r.do(c, req)
				if resp.StatusCode != tt.status || !strings.Contains(resp.text, tt.says) {
					t.Errorf("%s %q: %d %s", tt.path, tt.body, resp.StatusCode, resp.text)
				}
				seen := internet.Requests()[before:]
				if tt.status != 200 {
					if len(seen) > 0 {
						t.Errorf("%s %q reached the origin", tt.path, tt.body)
					}
					continue
				}
				if e := resp.echo(t); e.Body != tt.body || (e.Proto == "HTTP/2.0") != http2 || !http2 && e.Header.Get("Content-Length") == "" {
					t.Errorf("the origin saw %+v", e)
				}
			}
		}
	}
}

func TestBodiesInPermissiveMode(t *testing.T) {
	r := newRoom(t, permissive(bodies))
	c := r.client(false)
	r.do(c, post(r, "/graphql", deleteAll)).echo(t)
	if resp := r.do(c, post(r, "/graphql", "{")); resp.StatusCode != 400 {
		t.Errorf("what cannot be read: status %d", resp.StatusCode)
	}
	r.want(
		"connect allowed l4 "+weather+":443 policy=p",
		"request logged l7 "+weather+":443 POST https:/graphql 200 policy=p tls=terminated EVIDENCE (GraphQL operation not permitted by policy*",
		"request denied l7 "+weather+":443 POST https:/graphql 400 tls=terminated (GraphQL request rejected*",
	)
	rec := r.records()[1]
	if rec.Protocol != "graphql" || rec.EndpointPath != "/graphql" || len(rec.Missing) != 1 || rec.Missing[0].OperationType != "mutation" {
		t.Errorf("record %+v", rec)
	}
}

func TestBodiesThatCannotBeRead(t *testing.T) {
	r := newRoom(t, permissive(bodies))
	for header, want := range map[string]int{
		"Content-Encoding: gzip": 415, "Content-Encoding: identity, br": 415, "Content-Encoding: identity": 200,
		"Content-Type: application/json": 400,
	} {
		conn := r.mustDialTLS(weather+":443", r.trust(weather))
		resp := r.say(conn, "POST /graphql HTTP/1.1\r\nHost: "+weather+"\r\nContent-Type: application/json\r\nContent-Length: 20\r\n"+header+"\r\n\r\n"+queryUser)
		if resp.StatusCode != want {
			t.Errorf("%s: %d %s", header, resp.StatusCode, resp.text)
		}
		if want != 200 && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: answered %s", header, resp.Header)
		}
	}
}

func TestBodiesThatAreWaitedFor(t *testing.T) {
	r := newRoom(t, enforcing(bodies))
	conn := r.mustDialTLS(weather+":443", r.trust(weather))
	io.WriteString(conn, "POST /graphql HTTP/1.1\r\nHost: "+weather+"\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n")
	readLine(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
	if e := r.say(conn, queryUser).echo(t); e.Body != queryUser || e.Header.Get("Expect") != "" {
		t.Errorf("the origin saw %+v", e)
	}
	conn = r.mustDialTLS(weather+":443", r.trust(weather))
	io.WriteString(conn, "POST /graphql HTTP/1.1\r\nHost: "+weather+"\r\nExpect: 100-continue\r\nContent-Length: 201\r\n\r\n")
	readLine(t, conn, "HTTP/1.1 413 ") // unasked
}

func TestTrailersOfDecidedBodies(t *testing.T) {
	r := newRoom(t, enforcing(strings.ReplaceAll(strings.ReplaceAll(graphql, weather, "web.example"), "443", "80")))
	up, origin := tcpPair(t)
	seen := make(chan http.Header, 1)
	go func() {
		req, err := http.ReadRequest(bufio.NewReader(origin))
		if err == nil {
			io.Copy(io.Discard, req.Body)
			seen <- req.Trailer
		}
		io.WriteString(origin, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	}()
	r.say(r.carry(up), "POST /graphql HTTP/1.1\r\nHost: web.example\r\nContent-Type: application/json\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n"+queryUser+"\r\n0\r\nX-Sum: 7\r\n\r\n")
	if got := <-seen; got.Get("X-Sum") != "7" {
		t.Errorf("the origin saw trailers %v", got)
	}
}

func TestHeldBodiesAreBounded(t *testing.T) {
	r := newRoom(t, enforcing(bodies))
	held := r.proxy.held
	if !held.TryAcquire(maxHeld) {
		t.Fatal("something is held")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.do(r.client(false), post(r, "/graphql", queryUser)).echo(t)
	}()
	// Where somebody waits, nothing at all is to be had.
	eventually(t, "it waits", func() bool { return !held.TryAcquire(0) })
	if len(r.records()) > 0 && r.records()[0].Kind >= Request {
		t.Error("it was decided before")
	}
	held.Release(maxHeld)
	<-done
	eventually(t, "nothing is held", func() bool { return held.TryAcquire(maxHeld) })
}

func TestReconsiderDecidesKeptBodies(t *testing.T) {
	const rule = "{host: web.example, port: 80, protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [user]}}]}"
	for change, ends := range map[string]bool{rule: false, strings.Replace(rule, "user", "other", 1): true} {
		r := newRoom(t, enforcing(rule))
		up, origin := tcpPair(t)
		conn := r.carry(up)
		io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: web.example\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"+queryUser)
		if _, err := http.ReadRequest(bufio.NewReader(origin)); err != nil {
			t.Fatal(err)
		}
		r.change(enforcing(change))
		io.WriteString(origin, "HTTP/1.1 204 No Content\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if (err != nil) != ends {
			t.Errorf("after a change to %s: %v", change, err)
		}
	}
}

const socketRules = "{host: " + stream + ", port: 443, path: /ws, protocol: %s, enforcement: enforce, rules: [%s]}"

func socketRule(protocol, rules string) string {
	return strings.Replace(strings.Replace(socketRules, "%s", protocol, 1), "%s", rules, 1)
}

var (
	graphqlSocket  = socketRule("graphql", "{allow: {operation_type: query, fields: [user]}}")
	websocketNoSay = socketRule("websocket", "{allow: {method: GET, path: /ws}}")
	websocketSay   = socketRule("websocket", "{allow: {method: GET, path: /ws}}, {allow: {method: WEBSOCKET_TEXT, path: /ws}}")
)

const (
	subscribe    = `{"id":"1","type":"subscribe","payload":{"query":"{ user }"}}`
	subscribeAll = `{"id":"1","type":"subscribe","payload":{"query":"mutation { deleteAll }"}}`
)

func (r *room) websocket(t *testing.T) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "wss://"+stream+"/ws", &websocket.DialOptions{
		HTTPClient: r.client(false), CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func exchanges(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != text {
		t.Fatalf("read %q, %v", got, err)
	}
}

func closedWith(t *testing.T, conn *websocket.Conn, code websocket.StatusCode) {
	t.Helper()
	_, text, err := conn.Read(t.Context())
	if websocket.CloseStatus(err) != code {
		t.Errorf("read %q, %v; want it closed with %d", text, err, code)
	}
}

func TestDecidedWebSocket(t *testing.T) {
	const opened = "connect allowed l4 " + stream + ":443 policy=p"
	const upgraded = "request allowed l7 " + stream + ":443 GET https:/ws 101 policy=p tls=terminated"
	const message = " l7 " + stream + ":443 WEBSOCKET_TEXT https:/ws 0 policy=p tls=terminated"
	for name, tt := range map[string]struct {
		view  decision.Snapshot
		pass  []string
		say   string
		kind  websocket.MessageType
		code  websocket.StatusCode // 0: it passes
		wants []string
	}{
		"graphql": {enforcing(graphqlSocket), []string{`{"type":"connection_init"}`, subscribe}, subscribeAll, websocket.MessageText, 1008,
			[]string{"message allowed" + message, "message denied" + message + " EVIDENCE (GraphQL operation not permitted*"}},
		"graphql, malformed": {permissive(graphqlSocket), []string{subscribe}, "{", websocket.MessageText, 1008,
			[]string{"message allowed" + message, "message denied" + message + " (GraphQL WebSocket message rejected*"}},
		"graphql, binary": {enforcing(graphqlSocket), []string{subscribe}, subscribe, websocket.MessageBinary, 1008,
			[]string{"message allowed" + message, "message denied" + message + " (a binary message cannot be decided)"}},
		"graphql, permissive": {permissive(graphqlSocket), nil, subscribeAll, websocket.MessageText, 0,
			[]string{"message logged" + message + " EVIDENCE (GraphQL operation not permitted*"}},
		"websocket": {enforcing(websocketNoSay), nil, "hello", websocket.MessageText, 1008,
			[]string{"message denied" + message + " EVIDENCE (WEBSOCKET_TEXT /ws not permitted by policy)"}},
		"websocket, binary": {enforcing(websocketNoSay), nil, "hello", websocket.MessageBinary, 1008,
			[]string{"message denied" + message + " EVIDENCE (WEBSOCKET_TEXT /ws not permitted by policy)"}},
		"websocket, permissive": {permissive(websocketNoSay), nil, "hello", websocket.MessageBinary, 0,
			[]string{"message logged" + message + " EVIDENCE (WEBSOCKET_TEXT /ws not permitted by policy)"}},
		"websocket, audit": {enforcing(strings.Replace(websocketNoSay, "enforcement: enforce", "enforcement: audit", 1)), nil, "hello", websocket.MessageText, 0,
			[]string{"message audited" + message + " (WEBSOCKET_TEXT /ws not permitted by policy)"}},
		"websocket, allowed": {enforcing(websocketSay), []string{"x"}, "hello", websocket.MessageBinary, 0, nil},
		"maximum":            {capped(permissive(""), websocketNoSay), nil, "hello", websocket.MessageText, 1008, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, tt.view)
			conn := r.websocket(t)
			for _, text := range tt.pass {
				exchanges(t, conn, text)
			}
			if err := conn.Write(t.Context(), tt.kind, []byte(tt.say)); err != nil {
				t.Fatal(err)
			}
			if tt.code != 0 {
				closedWith(t, conn, tt.code)
			} else if _, got, err := conn.Read(t.Context()); err != nil || string(got) != tt.say {
				t.Fatalf("read %q, %v", got, err)
			}
			if name == "maximum" {
				last := r.nth(2)
				if last.Outcome != decision.Denied || last.Evidence || !strings.HasPrefix(last.Reason, beyond) {
					t.Errorf("record %s", line(last))
				}
				return
			}
			r.want(append([]string{opened, upgraded}, tt.wants...)...)
			if n := len(internet.Requests()); n != 1 || internet.Requests()[0].Header.Get("Sec-WebSocket-Extensions") != "" && name != "websocket, allowed" {
				t.Errorf("the origin saw %v", internet.Requests())
			}
		})
	}
}

func TestReconsiderClosesWebSockets(t *testing.T) {
	for what, v := range map[string]decision.Snapshot{
		"the handshake is not allowed":  enforcing(rest),
		"the connection is not allowed": enforcing(""),
		"the maximum is exceeded":       capped(permissive(""), ""),
	} {
		t.Run(what, func(t *testing.T) {
			r := newRoom(t, enforcing(graphqlSocket))
			conn := r.websocket(t)
			exchanges(t, conn, subscribe)
			r.change(enforcing(graphqlSocket))
			exchanges(t, conn, subscribe)
			r.change(v)
			closedWith(t, conn, 1012)
		})
	}
	r := newRoom(t, enforcing(websocketSay)) // one that is not read cannot stay
	conn := r.websocket(t)
	exchanges(t, conn, "x")
	r.change(enforcing(websocketNoSay))
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("it is still open")
	}
	r = newRoom(t, permissive(websocketSay)) // in permissive mode it can
	conn = r.websocket(t)
	r.change(permissive(websocketNoSay))
	exchanges(t, conn, "x")
}

// TestHandshakeWithBody has the body of a handshake say what a message must not.
func TestHandshakeWithBody(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(graphqlSocket), permissive("")} {
		r := newRoom(t, v)
		smuggled := string(frame(1, true, subscribeAll))
		resp := r.say(r.mustDialTLS(stream+":443", r.trust(stream)), "GET /ws HTTP/1.1\r\nHost: "+stream+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nTransfer-Encoding: chunked\r\n\r\n"+smuggled)
		if resp.StatusCode != 400 || len(internet.Requests()) > 0 {
			t.Errorf("status %d; the origin saw %v", resp.StatusCode, internet.Requests())
		}
	}
}

func TestOriginMayChooseOnlyWhatWasOffered(t *testing.T) {
	const key, accept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // RFC 6455 section 1.3
	for answer, want := range map[string]int{
		"":                                  101,
		"Sec-WebSocket-Protocol: b\r\n":     101,
		"Sec-WebSocket-Protocol: c\r\n":     502,
		"Sec-WebSocket-Extensions: x\r\n":   101,
		"Sec-WebSocket-Extensions: y;z\r\n": 502,
		"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n": 502,
	} {
		r := newRoom(t, permissive(""))
		up, origin := tcpPair(t)
		go func() {
			http.ReadRequest(bufio.NewReader(origin))
			io.WriteString(origin, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+"\r\n"+answer+"\r\n")
		}()
		conn := r.carry(up)
		io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+
			"\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: x; p=1\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%q: %v %v", answer, resp, err)
		}
	}
}
