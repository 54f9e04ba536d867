// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
	"openshell.ai/openshell/test/fakenet"
)

// chooser makes choices of a fuzzer's bytes, and takes the first choice where they have come to an end.
type chooser struct{ data []byte }

func (c *chooser) n(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *chooser) one(of ...string) string { return of[c.n(len(of))] }

// rules are a few of one policy. Every other one is what the requests below ask for, so that not all is denied.
func (c *chooser) rules() string {
	text := "version: 1\nnetwork_policies:\n"
	for i := range 1 + c.n(2) {
		host := c.one("a.stream.example", "a.stream.example", "a.stream.example", "'*.stream.example'", "private.example", "other.example", "")
		endpoint := "port: " + c.one("80", "80", "80", "80", "80", "81")
		if host != "" {
			endpoint += ", host: " + host
		}
		if allowed := c.one("", "", "", "[10.0.0.0/8]", "[45.0.0.0/8]"); allowed != "" || host == "" {
			endpoint += ", allowed_ips: " + strings.TrimSpace(allowed)
			if allowed == "" {
				endpoint += "[45.0.0.0/8]"
			}
		}
		enforce := ", enforcement: " + c.one("enforce", "audit")
		switch c.n(7) {
		case 0: // whatever is said
		case 1:
			endpoint += ", protocol: rest" + enforce + ", access: " + c.one("full", "read-only", "read-write")
		case 2:
			endpoint += ", protocol: rest" + enforce + ", rules: [{allow: {method: " + c.one("GET", "'*'", "POST") + ", path: " + c.one("/ok/**", "'**'", "/ws") + "}}]"
			endpoint += c.one("", ", deny_rules: [{method: '*', path: '/ok/no'}]")
		case 3:
			endpoint += ", path: /graphql, protocol: graphql" + enforce + ", rules: [{allow: {operation_type: query, fields: [user]}}]"
		case 4:
			endpoint += ", path: /rpc, protocol: json-rpc" + enforce + ", rules: [{allow: {method: sum}}]"
		case 5:
			endpoint += ", protocol: websocket" + enforce + ", rules: [{allow: {method: GET, path: /ws}}" + c.one("]", ", {allow: {method: WEBSOCKET_TEXT, path: /ws}}]")
		case 6:
			endpoint += ", protocol: rest" + enforce + ", rules: [{allow: {method: POST, path: '/upgrade/**'" + c.one("}}]", ", upgrade: [tcp]}}]")
		}
		text += fmt.Sprintf("  r%d: {endpoints: [{%s}]%s}\n", i, endpoint,
			c.one("", "", ", binaries: [{path: /usr/bin/tool}]", ", binaries: [{path: /bin/sh}]", ", binaries: [{path: /usr/bin/other}]"))
	}
	return text
}

// engine is nil where the rules are not valid.
func (c *chooser) engine() *engine.Engine {
	p, _, err := policy.Parse([]byte(c.rules()))
	if err != nil {
		return nil
	}
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		return nil
	}
	return e
}

// snapshot is false where it would not be valid.
func (c *chooser) snapshot() (s decision.Snapshot, ok bool) {
	if s.Effective = c.engine(); s.Effective == nil {
		return s, false
	}
	if c.n(2) == 1 {
		if s.Maximum = c.engine(); s.Maximum == nil {
			return s, false
		}
	}
	s.Permissive = c.n(2) == 1
	if endpoint := c.one("", "", "a.stream.example", "*.stream.example:80", fakenet.Addrs(stream)[0].String()); endpoint != "" {
		var err error
		if s.Never, err = engine.ParseEndpoints([]string{endpoint}); err != nil {
			panic(err)
		}
	}
	return s, true
}

// action is what a workload does: HTTP in clear on port 80, to a server that is there wherever it may be let to.
func (c *chooser) action() decision.Action {
	a := decision.Action{Binary: tool.Path, Ancestors: tool.Ancestors, Port: 80, Host: c.one("a.stream.example", "a.stream.example", "a.stream.example", "a.stream.example", "private.example", "metadata.google.internal")}
	public, private := fakenet.Addrs(stream)[0].String(), fakenet.Addrs("private.example")[0].String()
	switch c.n(8) {
	default:
		a.ResolvedIPs = []string{public}
	case 1:
		a.ResolvedIPs = []string{private}
	case 2:
		a.ResolvedIPs = []string{public, private}
	case 3:
		a.ResolvedIPs = []string{public, c.one("127.0.0.1", "169.254.169.254", "fd00:ec2::254")}
	}
	a.HTTP = &decision.RequestLine{Method: "GET", Target: c.one("/ok/1", "/ok/no", "/ok//a;b/../c?x=1", "/", "/../x", "/ok%2fno", "/graphql?query={user}", "/rpc")}
	switch c.n(7) {
	case 0:
		a.HTTP.Method = c.one("HEAD", "PUT", "PATCH", "PROPFIND")
	case 1:
		a.HTTP = &decision.RequestLine{Method: "POST", Target: "/graphql"}
		a.GraphQL = json.RawMessage(c.one(`{"query":"{ user }"}`, `{"query":"mutation { deleteAll }"}`, `{"query":"{ user"}`, `[]`, `{"query":"{ user }","query":"{ x }"}`))
	case 2:
		a.HTTP = &decision.RequestLine{Method: "POST", Target: "/rpc"}
		a.JSONRPC = json.RawMessage(c.one(`{"jsonrpc":"2.0","id":1,"method":"sum"}`, `{"jsonrpc":"2.0","id":1,"method":"drop"}`, `{"id":1}`))
	case 3:
		a.HTTP.Target = "/ws"
		text := c.one("hello", `{"id":"1","type":"subscribe","payload":{"query":"{ user }"}}`, `{"id":"1","type":"subscribe","payload":{"query":"mutation { deleteAll }"}}`)
		a.WebSocketText = &text
	case 4:
		a.HTTP = &decision.RequestLine{Method: "POST", Target: "/upgrade/x", Upgrade: []string{c.one("tcp", "TCP", "SPDY/3.1")}}
	}
	return a
}

// wireProxy is a proxy between connections that a test makes itself and the fake internet's servers.
type wireProxy struct {
	*Proxy
	snapshot atomic.Pointer[decision.Snapshot]
	resolved atomic.Pointer[[]netip.Addr]
	records  chan Record
}

func newWireProxy(t testing.TB) *wireProxy {
	t.Helper()
	outer, err := netns.Open(internet.Outer())
	if err != nil {
		t.Fatal(err)
	}
	w := &wireProxy{records: make(chan Record, 64)}
	w.Proxy = New(Config{
		Outer: outer, Snapshot: func() decision.Snapshot { return *w.snapshot.Load() }, Names: names.NewTable(nil),
		Resolve:        func(context.Context, string) ([]netip.Addr, error) { return *w.resolved.Load(), nil },
		Identify:       func(netip.AddrPort, netip.AddrPort) (identity.Process, error) { return tool, nil },
		Record:         func(r Record) { w.records <- r },
		MaxConnections: 1000, IdleTimeout: time.Minute, HeaderBytes: 16 << 10,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Serve(ctx, nil, nil) }()
	t.Cleanup(func() { cancel(); <-done; outer.Close() })
	return w
}

// do does the action. passed reports whether all of it reached a server and the answer came back.
func (w *wireProxy) do(t testing.TB, s decision.Snapshot, a decision.Action) (passed bool, records []Record) {
	t.Helper()
	var addrs []netip.Addr
	for _, text := range a.ResolvedIPs {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	w.snapshot.Store(&s)
	w.resolved.Store(&addrs)
	client, near := tcpPair(t)
	_ = client.SetDeadline(time.Now().Add(patience))
	f := w.newFlow(context.Background(), near, &endpoint{process: tool, host: a.Host, port: a.Port})
	w.track(f, false)
	w.handlers.Go(func() { f.run(clientConn{TCPConn: near}) })
	passed = exchangeOnWire(t, client, a)
	client.Close()
	<-f.ctx.Done()
	eventually(t, "the connection has ended", func() bool { return len(w.flowsNow()) == 0 })
	for {
		select {
		case r := <-w.records:
			records = append(records, r)
		default:
			return passed, records
		}
	}
}

func exchangeOnWire(t testing.TB, client net.Conn, a decision.Action) (passed bool) {
	t.Helper()
	body := string(a.GraphQL) + string(a.JSONRPC)
	text := a.HTTP.Method + " " + a.HTTP.Target + " HTTP/1.1\r\nHost: " + a.Host + "\r\n"
	if a.WebSocketText != nil {
		text += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	} else if a.HTTP.Upgrade != nil {
		text += "Connection: Upgrade\r\nUpgrade: " + strings.Join(a.HTTP.Upgrade, ", ") + "\r\nContent-Length: 0\r\n"
	} else {
		text += "Connection: close\r\n"
	}
	if body != "" {
		text += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(client, text+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(client)
	resp, err := http.ReadResponse(in, &http.Request{Method: a.HTTP.Method})
	if err != nil {
		t.Fatalf("%+v: no answer: %v", a.HTTP, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && a.HTTP.Upgrade != nil {
		const raw = "\x00\x01\xff"
		_, err := io.WriteString(client, raw)
		echo := make([]byte, len(raw))
		if err == nil {
			_, err = io.ReadFull(in, echo)
		}
		return err == nil && string(echo) == raw
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		message := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(*a.WebSocketText))))
		if _, err := client.Write(message); err != nil {
			t.Fatal(err)
		}
		h, err := ws.ReadHeader(in)
		echo := make([]byte, len(*a.WebSocketText))
		if err != nil || h.OpCode != ws.OpText || h.Length != int64(len(echo)) {
			return false
		}
		_, err = io.ReadFull(in, echo)
		return err == nil && string(echo) == *a.WebSocketText
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode == http.StatusOK // as the servers answer everything
}

// agree checks that the wire does what policy eval says: the same outcome for the same reason. It returns what
// that is, or "" where the choices make no valid policy.
func (w *wireProxy) agree(t testing.TB, data []byte) (said string) {
	t.Helper()
	c := &chooser{data}
	s, ok := c.snapshot()
	if !ok {
		return ""
	}
	a := c.action()
	eval, err := s.Evaluate(a)
	if err != nil {
		t.Fatal(err)
	}
	passed, records := w.do(t, s, a)
	// What says the least good decides: a refused message came on a request that was let through.
	severity := map[decision.Outcome]int{decision.Allowed: 0, decision.Audited: 1, decision.Logged: 2, decision.Denied: 3}
	var did Record
	for _, r := range records {
		switch {
		case r.Layer == LayerUpstream:
			t.Fatalf("the wire: %s", line(r))
		case did.Layer == "", r.Kind > did.Kind && (did.Kind == Connect || did.Outcome == decision.Allowed), severity[r.Outcome] > severity[did.Outcome]:
			did = r
		}
	}
	layer := did.Layer
	if layer == LayerHTTP {
		layer = LayerL7 // which eval calls what cannot be read
	}
	if did.Outcome.String() != eval.Decision || layer != eval.Layer || did.Reason != eval.Reason || passed == (eval.Decision == "deny") {
		text, _ := json.Marshal(a)
		var lines []string
		for _, r := range records {
			lines = append(lines, line(r))
		}
		t.Errorf("%x\neffective, then maximum:\n%s\npermissive %v\n%s\neval: %+v\nwire: passed %v\n  %s", data,
			(&chooser{data}).rules(), s.Permissive, text, eval.Answer, passed, strings.Join(lines, "\n  "))
	}
	return eval.Decision + " " + eval.Layer
}

// FuzzEvalIsTheWire does what it has asked policy eval about.
func FuzzEvalIsTheWire(f *testing.F) {
	w := newWireProxy(f)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) { w.agree(t, data) })
}

func TestEvalIsTheWire(t *testing.T) {
	w := newWireProxy(t)
	r := rand.New(rand.NewPCG(1, 2))
	said := map[string]int{}
	for range 2000 {
		data := make([]byte, 64)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		said[w.agree(t, data)]++
		if t.Failed() {
			return
		}
	}
	for _, answer := range []string{"allow l4", "allow l7", "audit l4", "audit l7", "deny l4", "deny l7", "deny ssrf"} {
		if said[answer] < 20 {
			t.Errorf("%q is the answer %d times: the actions are too few or too much alike: %v", answer, said[answer], said)
		}
	}
}
