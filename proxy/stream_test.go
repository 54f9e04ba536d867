// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/test/fakenet"
)

const stream = "stream.example"

func TestWebSocket(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		r := newRoom(t, permissive(""))
		conn, _, err := websocket.Dial(t.Context(), scheme+"://"+stream+"/ws", &websocket.DialOptions{HTTPClient: r.client(false)})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"one", strings.Repeat("two", 10000)} {
			if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := conn.Read(t.Context()); err != nil || string(got) != text {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
		}
		if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Error(err)
		}
		port, how := "443", "terminated"
		if scheme == "http" {
			port, how = "80", "none"
		}
		r.want(
			"connect logged l4 "+stream+":"+port+" "+empty,
			"request logged l4 "+stream+":"+port+" GET "+scheme+":/ws 101 tls="+how+" EVIDENCE "+empty,
		)
	}
}

func TestOnlyWebSocketLeavesHTTP(t *testing.T) {
	r := newRoom(t, permissive(""))
	resp := r.say(r.mustDial("web.example:80"), "GET /x HTTP/1.1\r\nHost: web.example\r\n"+
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	if e := resp.echo(t); e.Header.Get("Upgrade") != "" || e.Header.Get("Http2-Settings") != "" {
		t.Errorf("the origin saw %v", e.Header)
	}
}

// TestOriginMayNotSwitchUnasked has an origin of its own, which answers 101 to
// anything.
func TestOriginMayNotSwitchUnasked(t *testing.T) {
	for _, ask := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"} {
		r := newRoom(t, permissive(""))
		up, origin := tcpPair(t)
		go func() {
			http.ReadRequest(bufio.NewReader(origin))
			io.WriteString(origin, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\nsmuggled")
		}()
		conn := r.carry(up)
		resp := r.say(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\n"+ask+"\r\n")
		if resp.StatusCode != 502 || strings.Contains(resp.text, "smuggled") {
			t.Errorf("answer %d %s", resp.StatusCode, resp.text)
		}
	}
}

func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// carry relays a connection of a client to an origin that a test plays itself.
func (r *room) carry(up *net.TCPConn) net.Conn {
	client, near := tcpPair(r.t)
	f := r.proxy.newFlow(r.t.Context(), near, &endpoint{
		process: tool, host: "web.example", port: 80, addrs: fakenet.Addrs("web.example")[:1], // for later connections
	})
	r.proxy.track(f, false)
	f.conns.own(up)
	f.admitted.Store(true)
	go f.relay(clientConn{TCPConn: near}, up, f.decideNow())
	_ = client.SetDeadline(time.Now().Add(patience))
	return client
}

// awaitRead waits until the proxy has read what the client of its only flow wrote.
func (r *room) awaitRead(client net.Conn) {
	r.t.Helper()
	var near *net.TCPConn
	r.proxy.mu.Lock()
	for f := range r.proxy.flows {
		near = f.conns.client
	}
	r.proxy.mu.Unlock()
	eventually(r.t, "the proxy has read", func() bool {
		return queued(r.t, client.(*net.TCPConn), unix.SIOCOUTQ)+queued(r.t, near, unix.SIOCINQ) == 0
	})
}

// queued returns how many bytes wait in a socket (tcp(7)): those that are not
// acknowledged (SIOCOUTQ), or those that are not read (SIOCINQ).
func queued(t testing.TB, c *net.TCPConn, what uint) (bytes int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { bytes, err = unix.IoctlGetInt(int(fd), what) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestOriginThatClosedBeforeTheFirstRequestIsDialledAgain(t *testing.T) {
	r := newRoom(t, permissive(""))
	up, origin := tcpPair(t)
	conn := r.carry(up)
	io.WriteString(conn, "GE")
	r.awaitRead(conn) // so that it knows who was first to speak
	origin.Close()
	eventually(t, "the proxy's side knows", func() bool { return !alive(up) })
	if e := r.say(conn, "T /x HTTP/1.1\r\nHost: web.example\r\n\r\n").echo(t); e.Target != "/x" {
		t.Errorf("the origin saw %+v", e)
	}
}

func TestEarlyAnswerToALongUpload(t *testing.T) {
	r := newRoom(t, permissive(""))
	up, origin := tcpPair(t)
	go func() {
		http.ReadRequest(bufio.NewReader(origin))
		io.WriteString(origin, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	}()
	conn := r.carry(up)
	io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: web.example\r\nContent-Length: 1000000\r\n\r\nstart")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatalf("answer %v, %v", resp, err)
	}
}

func TestServerSentEvents(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, permissive(""))
		resp := r.get(r.client(http2), "https://"+stream+"/sse?n=5")
		if !strings.HasPrefix(resp.text, "id: 0\n") || !strings.HasSuffix(resp.text, "data: event 4\n\n") {
			t.Errorf("HTTP/2 %v: %q", http2, resp.text)
		}
	}
}

// TestServerSentEventsAreNotHeldBack has an origin of its own, which sends the
// second event when the client has the first.
func TestServerSentEventsAreNotHeldBack(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		had := make(chan struct{})
		origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			select {
			case <-had:
				io.WriteString(w, "data: 2\n\n")
			case <-r.Context().Done():
			}
		}))
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2) // by prior knowledge
		origin.Config.Protocols = protocols
		origin.Start()
		t.Cleanup(origin.Close)
		s := newStage(t, fuzzRules)
		transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, near := tcpPair(t)
			f := s.proxy.newFlow(t.Context(), near, &endpoint{process: tool})
			s.proxy.track(f, false)
			go inspected(origin.Listener.Addr().(*net.TCPAddr).AddrPort())(f, clientConn{TCPConn: near})
			return client, nil
		}}
		t.Cleanup(transport.CloseIdleConnections)
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("http://web.example/ok/events")
		if err != nil {
			t.Fatal(err)
		}
		readLine(t, resp.Body, "data: 1\n\n")
		close(had)
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "data: 2\n\n" {
			t.Errorf("HTTP/2 %v: then %q, %v", http2, rest, err)
		}
		resp.Body.Close()
	}
}

func TestTrailersBothWays(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, permissive(""))
		c := r.client(http2)
		resp := r.get(c, "https://"+stream+"/trailers")
		if resp.Trailer.Get("X-Checksum") != "sum-of-GET" || resp.Trailer.Get("X-Late") != "yes" {
			t.Errorf("HTTP/2 %v: trailers %v", http2, resp.Trailer)
		}
	}
	r := newRoom(t, permissive(""))
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
	r.say(r.carry(up), "POST /x HTTP/1.1\r\nHost: web.example\r\nTrailer: X-Sum, Host\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nHost: x\r\nAuthorization: y\r\n\r\n")
	if got := <-seen; len(got) != 1 || got.Get("X-Sum") != "7" {
		t.Errorf("the origin saw trailers %v", got)
	}
}

func TestInformationalResponses(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, permissive(""))
		hints := ""
		req := r.request("GET", "https://"+stream+"/early-hints", "")
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				hints = fmt.Sprint(code, header.Get("Link"))
				return nil
			},
		}))
		if resp := r.do(r.client(http2), req); resp.text != "hinted\n" || hints != "103</style.css>; rel=preload; as=style" {
			t.Errorf("%d %q, before it %s", resp.StatusCode, resp.text, hints)
		}
		rec := r.nth(1)
		if rec.Status != 200 {
			t.Errorf("record %s", line(rec))
		}
	}
}

func TestExpectContinue(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.mustDial("web.example:80")
	io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: web.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	readLine(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
	if e := r.say(conn, "body").echo(t); e.Body != "body" {
		t.Errorf("the origin saw %q", e.Body)
	}
}

func TestLargeBodiesPass(t *testing.T) {
	const size = 8 << 20
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, permissive(""))
		c := r.client(http2)
		if resp := r.get(c, fmt.Sprintf("https://%s/chunked/%d", stream, size)); len(resp.text) != size {
			t.Errorf("read %d bytes", len(resp.text))
		}
		if e := r.do(c, r.request("PUT", "https://"+stream+"/up", strings.Repeat("x", size))).echo(t); e.Length != size {
			t.Errorf("the origin read %d bytes", e.Length)
		}
	}
}

// TestBodiesAreNotHeld has one end send what the other does not read: the
// proxy must stop reading too.
func TestBodiesAreNotHeld(t *testing.T) {
	const most = 32 << 20 // the kernel's buffers of four sockets, and some
	chunk := make([]byte, 1<<20)
	stalls := func(what string, conn net.Conn) {
		sent := 0
		for sent < 2*most {
			conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := conn.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		if sent > most {
			t.Errorf("%d bytes of the %s were taken", sent, what)
		}
	}
	r := newRoom(t, permissive(""))
	up, origin := tcpPair(t)
	conn := r.carry(up)
	io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n")
	http.ReadRequest(bufio.NewReader(origin))
	io.WriteString(origin, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
	stalls("response", origin)

	up, origin = tcpPair(t)
	conn = r.carry(up)
	io.WriteString(conn, "PUT /x HTTP/1.1\r\nHost: web.example\r\nContent-Length: 1000000000\r\n\r\n")
	stalls("request", conn)
	origin.Close()
}

func TestGRPC(t *testing.T) {
	for _, url := range []string{"https://" + stream + "/svc/Echo", "http://web.example/svc/Echo"} {
		r := newRoom(t, permissive(""))
		transport := &http.Transport{DialContext: r.dial, TLSClientConfig: r.trust(""), Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true) // by prior knowledge, as gRPC does
		t.Cleanup(transport.CloseIdleConnections)
		in, out := io.Pipe()
		req, _ := http.NewRequest("POST", url, in)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // the answer comes while the request goes on
			message := binary.BigEndian.AppendUint32([]byte{0}, 1)
			message = append(message, byte(i))
			out.Write(message)
			readLine(t, resp.Body, string(message))
		}
		out.Close()
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %s, trailers %v", url, resp.Proto, resp.Trailer)
		}
		if seen := internet.Requests()[0]; seen.Proto != "HTTP/2.0" {
			t.Errorf("%s: the origin was spoken to in %s", url, seen.Proto)
		}
		rec := r.nth(1)
		if rec.Method != "POST" || rec.Path != "/svc/Echo" || rec.Status != 200 || !rec.Evidence {
			t.Errorf("record %s", line(rec))
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	r := newRoom(t, enforcing("{host: echo.example, port: 7}"), func(_ *room, c *Config) { c.MaxConnections = 2 })
	for range 2 {
		conn := r.mustDial("echo.example:7")
		io.WriteString(conn, "x")
		readLine(t, conn, "x")
	}
	third := r.dialToBeReset("echo.example:7")
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was served")
	}
	r.want("connect allowed l4 echo.example:7 policy=p", "connect allowed l4 echo.example:7 policy=p",
		"connect denied limit (the sandbox has 2 connections open (limits.connections))")
}

// TestStreamsCountAsConnections has one connection carry what many may not.
func TestStreamsCountAsConnections(t *testing.T) {
	r := newRoom(t, permissive(""), func(_ *room, c *Config) { c.MaxConnections = 3 })
	c := r.client(true)
	statuses, bodies := map[int]int{}, []io.Reader{}
	for range 5 {
		resp, err := c.Get("https://" + stream + "/drip/100000")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		statuses[resp.StatusCode]++
		if resp.StatusCode == 200 {
			bodies = append(bodies, resp.Body)
		}
	}
	for _, body := range bodies { // the refusals have ended none
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Error(err)
		}
	}
	if statuses[200] != 3 || statuses[503] != 2 {
		t.Errorf("answers %v", statuses)
	}
	c.CloseIdleConnections()
	refused := 0
	for _, rec := range r.records() {
		if rec.Layer == LayerLimit && rec.Outcome == decision.Denied && !rec.Evidence {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("records %v", r.records())
	}
}

// TestAnswersAreNotHeld is TestBodiesAreNotHeld for HTTP/2, whose streams the
// client gives no room.
func TestAnswersAreNotHeld(t *testing.T) {
	r := newRoom(t, permissive(""))
	c := r.client(true)
	c.Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	const streams, size = 16, 8 << 20
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	for range streams {
		resp, err := c.Get(fmt.Sprintf("https://%s/chunked/%d", stream, size))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	held, last := 0, -1
	for range 100 { // until no more comes
		time.Sleep(200 * time.Millisecond)
		if held = heap() - before; held-last < 1<<20 {
			break
		}
		last = held
	}
	if most := streams * (streamBuffer + 512<<10); held > most {
		t.Errorf("%d MiB are held for %d streams, want at most %d", held>>20, streams, most>>20)
	}
}

// TestOriginsAreLeftWithTheClient has the workload hang up with streams under way.
func TestOriginsAreLeftWithTheClient(t *testing.T) {
	r := newRoom(t, permissive(""))
	for range 5 {
		c := r.client(true)
		for range 10 {
			resp, err := c.Get("https://" + stream + "/drip/100000")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
		}
	}
	var origins []*net.TCPConn
	for _, f := range r.proxy.flowsNow() {
		f.conns.mu.Lock()
		origins = slices.AppendSeq(origins, maps.Keys(f.conns.origins))
		client := f.conns.client
		f.conns.mu.Unlock()
		client.Close()
	}
	if len(origins) != 5 {
		t.Fatalf("%d connections to origins", len(origins))
	}
	eventually(t, "connections to origins are closed", func() bool {
		return !slices.ContainsFunc(origins, func(c *net.TCPConn) bool { return !closed(c) })
	})
}

// TestOriginsThatHangUpAreForgotten has each request's answer end its connection.
func TestOriginsThatHangUpAreForgotten(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.mustDial("web.example:80")
	for range 10 {
		r.say(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n").echo(t)
		for _, f := range r.proxy.flowsNow() {
			f.http.Load().transport.CloseIdleConnections()
			f.conns.mu.Lock()
			if n := len(f.conns.origins); n > 2 {
				t.Errorf("%d connections are remembered", n)
			}
			f.conns.mu.Unlock()
		}
	}
}

// TestPlacesAreGivenBack opens and ends connections of each kind one after the
// other, under a limit of one.
func TestPlacesAreGivenBack(t *testing.T) {
	r := newRoom(t, permissive("{host: echo.example, port: 7}"), func(_ *room, c *Config) { c.MaxConnections = 1 })
	for i := range 3 {
		for _, use := range []func(){
			func() { r.say(r.mustDial("web.example:80"), "GET /x HTTP/1.0\r\n\r\n") },
			func() {
				conn := r.mustDialTLS(weather+":443", r.trust(weather))
				r.say(conn, "GET /x HTTP/1.0\r\n\r\n")
				conn.Close()
			},
			func() { r.say(r.mustDial(explicitProxy), "GET http://web.example/ HTTP/1.0\r\n\r\n") },
			func() {
				conn := r.mustDial(explicitProxy)
				r.say(conn, "CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\n")
				conn.Close()
			},
			func() {
				conn := r.mustDial("echo.example:7")
				echoes(t, "the connection", conn)
				conn.Close()
			},
			func() { tls.Client(r.mustDial(weather+":443"), r.distrusting("x.example")).Handshake() },
		} {
			use()
			eventually(t, fmt.Sprintf("round %d: no connection is counted", i), func() bool { return r.proxy.open.Load() == 0 })
		}
	}
	for _, rec := range r.records() {
		if rec.Layer == LayerLimit {
			t.Error("the limit was hit")
		}
	}
}
