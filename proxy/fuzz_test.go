// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/httptarget"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

func FuzzFirstBytes(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.example"}))
	f.Add(fragmented(hello(f, &tls.Config{ServerName: "a.example"}), 50))
	f.Add(append([]byte{21, 3, 1, 0, 2, 1, 0}, hello(f, &tls.Config{ServerName: "b.example"})...))
	f.Add([]byte{0x80, 46, 1, 3, 1, 0, 3, 0, 0, 0, 32, 0, 0, 47})
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, undecided := classify(b)
		if more, _ := classify(append(b[:len(b):len(b)], "\xff\xff\xff"...)); !undecided && s != more {
			t.Errorf("%q was decided to be %d, and then %d", b, s, more)
		}
		flow := flowTo("a.example")
		conn := scripted{r: bytes.NewReader(b)}
		read, err := flow.checkHello(conn, nil)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(conn)
		if !bytes.Equal(append(read[:len(read):len(read)], rest...), b) {
			t.Errorf("%q became %q", b, read)
		}
		// Go's server passes over much. Where it finds a ClientHello, its name was looked at.
		name, found := goServerName(b)
		if found && (handling(flow) != TLSSpliced || !flow.asksForHost(name)) {
			t.Errorf("%q: Go reads a hello for %q, and it was let through as %s", b, name, handling(flow))
		}
	})
}

// goServerName is the name in the ClientHello that crypto/tls finds.
func goServerName(b []byte) (name string, found bool) {
	_ = tls.Server(scripted{r: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name, found = hello.ServerName, true
			return nil, errors.New("seen")
		},
	}).Handshake()
	return name, found
}

// brief is how long a fuzzed client waits. Fuzzing has no time to be patient.
const brief = 30 * time.Millisecond

// stage is a proxy without namespaces.
type stage struct {
	proxy *Proxy
	// whole tells a client that it has its answer, and may end its side. Without
	// it, as in fuzzing, where there may be none, the client does so when nothing
	// came for brief.
	whole func(answer []byte) bool

	mu       sync.Mutex
	plays    int
	recorded map[int][]Record // by play
}

func newStage(t testing.TB, rules string) *stage {
	t.Helper()
	s := &stage{recorded: map[int][]Record{}}
	home, err := netns.Home()
	if err != nil {
		t.Fatal(err)
	}
	e := compiled(rules, false)
	s.proxy = New(Config{
		Outer: home, Snapshot: func() decision.Snapshot { return decision.Snapshot{Effective: e} }, Names: names.NewTable(nil),
		Resolve:        func(context.Context, string) ([]netip.Addr, error) { return nil, io.EOF },
		Identify:       func(netip.AddrPort, netip.AddrPort) (identity.Process, error) { return tool, nil },
		Record:         s.record,
		MaxConnections: 1000, IdleTimeout: 10 * time.Second, HeaderBytes: 16 << 10,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.proxy.Serve(ctx, nil, nil) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// record keeps plays apart by the process that each has of its own: the last
// records of one may come while the next is on.
func (s *stage) record(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recorded[r.Process.PID] = append(s.recorded[r.Process.PID], r)
}

// play is one connection to the stage's proxy, and the origin behind it, which
// answers every request and remembers it as its own parser read it.
type play struct {
	stage  *stage
	number int
	addr   netip.AddrPort
	tee    *teeListener

	mu  sync.Mutex
	saw []sighting
}

type sighting struct{ method, target, host string }

func (p *play) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.saw = append(p.saw, sighting{r.Method, r.RequestURI, r.Host})
	p.mu.Unlock()
	io.Copy(io.Discard, r.Body)
}

// newPlay starts an origin that speaks HTTP.
func (s *stage) newPlay(t *testing.T) (p *play, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.plays++
	p = &play{stage: s, number: s.plays, addr: l.Addr().(*net.TCPAddr).AddrPort(), tee: &teeListener{Listener: l}}
	s.mu.Unlock()
	origin := &http.Server{Handler: p, Protocols: new(http.Protocols)}
	origin.Protocols.SetHTTP1(true)
	origin.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() { defer close(served); origin.Serve(p.tee) }()
	return p, func() {
		// Shutdown would not wait for a connection that is just being accepted, and
		// would drop a request that is just being read.
		l.Close()
		<-served
		p.tee.awaitEnd(t)
		if err := origin.Shutdown(t.Context()); err != nil { // its last request included
			t.Fatal(err)
		}
	}
}

// say sends bytes on a new connection of a flow and returns what the proxy
// answers until it has nothing more to say.
func (s *stage) say(t *testing.T, text []byte, number int, start func(*tcpFlow, clientConn)) (answer []byte) {
	t.Helper()
	client, near := tcpPair(t)
	defer client.Close()
	process := tool
	process.PID = number
	f := s.proxy.newFlow(context.Background(), near, &endpoint{process: process})
	s.proxy.track(f, false)
	go start(f, clientConn{TCPConn: near})
	client.SetDeadline(time.Now().Add(patience))
	client.Write(text)
	buf := make([]byte, 16<<10)
	// A client that ends its side too soon is one that has left.
	wait := brief
	if s.whole != nil {
		wait = patience
	}
	for ended := false; ; {
		client.SetReadDeadline(time.Now().Add(wait))
		n, err := client.Read(buf)
		answer = append(answer, buf[:n]...)
		switch {
		case ended && err == nil:
		case !ended && (errors.Is(err, os.ErrDeadlineExceeded) || err == nil && s.whole != nil && s.whole(answer)):
			client.CloseWrite()
			wait, ended = 2*time.Second, true
		case err != nil:
			f.abort()
			return answer
		}
	}
}

// inspected starts a flow to an endpoint of fuzzRules whose origin is at addr.
func inspected(addr netip.AddrPort) func(*tcpFlow, clientConn) {
	return func(f *tcpFlow, client clientConn) {
		f.to.Store(&endpoint{process: f.endpoint().process, host: "web.example", port: 80, addrs: []netip.Addr{addr.Addr()}})
		f.admitted.Store(true)
		up, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
		if err != nil {
			f.abort()
			return
		}
		f.relay(client, up, f.decideNow())
	}
}

// speak is say to an origin that speaks HTTP. It returns what the origin saw
// and what the proxy recorded.
func (s *stage) speak(t *testing.T, text []byte, start func(netip.AddrPort) func(*tcpFlow, clientConn)) ([]sighting, []Record) {
	t.Helper()
	p, end := s.newPlay(t)
	s.say(t, text, p.number, start(p.addr))
	end()
	p.checkBytes(t, text)
	// A record may come a moment after what it is about.
	for late, done := time.Now().Add(patience), false; !done && time.Now().Before(late); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		done = len(p.saw) <= len(s.recordsOf(p.number))
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saw, s.recordsOf(p.number)
}

// checkBytes checks that what the origin read in HTTP/1 could be read in no
// other way.
func (p *play) checkBytes(t *testing.T, text []byte) {
	t.Helper()
	p.mu.Lock()
	saw := len(p.saw)
	p.mu.Unlock()
	strict := 0
	for _, b := range p.tee.read() {
		if bytes.HasPrefix(b, []byte("PRI *")) {
			return
		}
		requests, err := strictRequests(b)
		if err != nil {
			t.Errorf("%q made the origin read %q: %v", text, b, err)
		}
		strict += len(requests)
	}
	if strict != saw {
		t.Errorf("%q made the origin read %d requests, and a strict one %d", text, saw, strict)
	}
}

func (s *stage) recordsOf(number int) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recorded[number])
}

const fuzzRules = "{host: web.example, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: '/ok/**'}}, {allow: {method: POST, path: /post}}]}"

var fuzzRequests = []string{
	"GET /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n",
	"GET /ok/../no HTTP/1.1\r\nHost: web.example\r\n\r\nGET /no HTTP/1.1\r\nHost: web.example\r\n\r\n",
	"GET /ok/%2e%2e/no HTTP/1.1\r\nHost: web.example\r\n\r\n",
	"GET //ok//a;b/c?d=e HTTP/1.1\r\nHost: web.example:80\r\n\r\n",
	"GET http://web.example/ok/a HTTP/1.1\r\nHost: other.example\r\n\r\n",
	"POST /post HTTP/1.1\r\nHost: web.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /no HTTP/1.1\r\nHost: web.example\r\n\r\n",
	"POST /post HTTP/1.1\r\nHost: web.example\r\nContent-Length: 44\r\n\r\nGET /no HTTP/1.1\r\nHost: web.example\r\n\r\n",
	"POST /post HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n2;x=y\r\nhi\r\n0\r\nHost: x\r\n\r\n",
	"GET /ok/1 HTTP/1.1\nHost: web.example\nConnection: Host, Upgrade\nUpgrade: h2c\n\n",
	"GET /ok/1 HTTP/1.0\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: web.example\r\n\r\n",
}

// FuzzRequests says anything at all to an inspected connection. What the
// origin's parser then reads must be what was decided, one for one.
func FuzzRequests(f *testing.F) {
	for _, text := range fuzzRequests {
		f.Add([]byte(text))
	}
	s := newStage(f, fuzzRules)
	match := compiled(fuzzRules, false).Connect(engine.Connection{Binary: tool.Path, Host: "web.example", Port: 80})
	f.Fuzz(func(t *testing.T, text []byte) {
		saw, recorded := s.speak(t, text, inspected)
		decided := map[string]int{}
		for _, rec := range recorded {
			if rec.Kind == Request && rec.Outcome == decision.Allowed {
				decided[rec.Method+" "+rec.Path]++
			}
		}
		for _, saw := range saw {
			target, err := httptarget.Parse(saw.method, saw.target)
			if err != nil {
				t.Errorf("%q made the origin see %v: %v", text, saw, err)
			}
			if decided[saw.method+" "+target.Path()]--; decided[saw.method+" "+target.Path()] < 0 {
				t.Errorf("%q made the origin see %v, which nobody decided on", text, saw)
			}
			for _, path := range target.Readings() {
				if v := match.Request(engine.Request{Method: saw.method, Path: path, RawQuery: target.Query()}); v.Decision != engine.Allow {
					t.Errorf("%q made the origin see %v: %s", text, saw, v.Reason)
				}
			}
			if !bytes.Contains(text, []byte(saw.target)) && !bytes.HasPrefix(text, []byte("PRI *")) && saw.target != "/" {
				t.Errorf("%q made the origin see %v, which nobody sent", text, saw)
			}
			host, _, _ := strings.Cut(strings.ToLower(saw.host), ":")
			if strings.TrimSuffix(host, ".") != "web.example" {
				t.Errorf("%q made the origin see %v", text, saw)
			}
		}
	})
}

// FuzzExplicitProxy says anything at all to the explicit proxy, which allows
// nothing: nothing may be resolved or dialled for a connection that is refused.
func FuzzExplicitProxy(f *testing.F) {
	for _, text := range fuzzRequests {
		f.Add([]byte(text))
	}
	for _, text := range []string{
		"CONNECT [::1]:80 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT a:b:80 HTTP/1.1\r\n\r\n",
		"GET http://a@b:80@c/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET https://a/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://[::ffff:127.0.0.1%25lo]:80/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	s := newStage(f, fuzzRules)
	f.Fuzz(func(t *testing.T, text []byte) {
		saw, recorded := s.speak(t, text, func(netip.AddrPort) func(*tcpFlow, clientConn) {
			return func(f *tcpFlow, client clientConn) {
				f.to.Store(&endpoint{process: f.endpoint().process, host: "10.200.0.1", port: 3128})
				s.proxy.toProxy.enqueue(newServerConn(newFlowConn(client, f), &httpFlow{tcpFlow: f}))
			}
		})
		if len(saw) > 0 {
			t.Errorf("%q reached an origin: %v", text, saw)
		}
		for _, rec := range recorded {
			// The one host that is allowed does not resolve here.
			if rec.Outcome != decision.Denied || rec.Host == "web.example" && rec.Layer == LayerL4 && rec.Port == 80 {
				t.Errorf("%q: record %s", text, line(rec))
			}
			if rec.Host != strings.ToLower(rec.Host) || rec.Port == 0 {
				t.Errorf("%q: record of %q port %d", text, rec.Host, rec.Port)
			}
		}
	})
}

// TestPipelinedRequestsAreDecidedOneByOne is the fuzz target's property on a
// case that matters most, by the answers.
func TestPipelinedRequestsAreDecidedOneByOne(t *testing.T) {
	r := newRoom(t, enforcing(strings.Replace(rest, "443", "80", 1)))
	conn := r.mustDial(weather + ":80")
	for _, path := range []string{"/ok/1", "/ok/2", "/no", "/ok/3"} {
		io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+weather+"\r\n\r\n")
	}
	answers := bufio.NewReader(conn)
	for i, want := range []int{200, 200, 403} {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want {
			t.Errorf("answer %d: status %d", i, resp.StatusCode)
		}
	}
	if b, _ := io.ReadAll(answers); len(b) > 0 {
		t.Errorf("after the refusal: %q", b)
	}
	if n := len(internet.Requests()); n != 2 {
		t.Errorf("the origin saw %d requests", n)
	}
}
