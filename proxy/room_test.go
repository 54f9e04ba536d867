// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
	"openshell.ai/openshell/test/fakenet"
)

// patience is how long a test waits for what must come, on a machine that is
// busy with other things.
const patience = 30 * time.Second

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("still not: " + what)
		}
	}
}

// internet is one fake internet for all tests, which run one after the other.
var internet *fakenet.Net

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperArg {
		os.Exit(runHelper(os.Args[2:]))
	}
	var err error
	if internet, err = fakenet.New(fakenet.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := internet.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// tool is who the workload is, where a test does not ask the kernel.
var tool = identity.Process{PID: 42, Path: "/usr/bin/tool", SHA256: strings.Repeat("ab", 32), Ancestors: []string{"/bin/sh"}}

// room is a sealed namespace with its proxy and name server.
type room struct {
	t     testing.TB
	inner *netns.Namespace
	proxy *Proxy
	view  atomic.Pointer[decision.Snapshot]
	v6    bool // dial IPv6

	mu   sync.Mutex
	seen []Record
}

// MayResolve is what a sandbox's Gate does.
func (r *room) MayResolve(name string) bool {
	return r.view.Load().MayResolve(name, name)
}

// Refused is not what the tests of this package look at.
func (*room) Refused(string) {}

func enforcing(endpoints string) decision.Snapshot {
	return decision.Snapshot{Effective: compiled(endpoints, false)}
}
func permissive(endpoints string) decision.Snapshot {
	return decision.Snapshot{Effective: compiled(endpoints, false), Permissive: true}
}

// compiled is an engine of the endpoints of one rule named "p", one a line in YAML's
// flow style. No line is the empty policy.
func compiled(endpoints string, learned bool) *engine.Engine {
	text := "version: 1\n"
	if endpoints != "" {
		text += "network_policies:\n  p:\n    binaries: [{path: /usr/bin/tool}]\n    endpoints:\n"
		for line := range strings.Lines(endpoints) {
			text += "      - " + strings.TrimSpace(line) + "\n"
		}
	}
	p, _, err := policy.Parse([]byte(text))
	if err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, text))
	}
	for _, rule := range p.Network {
		rule.Learned = learned
	}
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		panic(err)
	}
	return e
}

func newRoom(t testing.TB, v decision.Snapshot, change ...func(*room, *Config)) *room {
	t.Helper()
	internet.Reset()
	r := &room{t: t}
	r.view.Store(&v)
	var err error
	if r.inner, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.inner.Close() })
	if v6, err := netns.Seal(r.inner, nil); err != nil || !v6 {
		t.Fatalf("seal: IPv6 %v, %v", v6, err)
	}
	outer, err := netns.Open(internet.Outer())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outer.Close() })
	authority, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	tracked, err := netns.NewConntrack(r.inner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracked.Close() })
	upstream := names.NewUpstream(outer, []netip.AddrPort{internet.DNS()}, nil)
	table := names.NewTable(nil)
	config := Config{
		Inner:            r.inner,
		Outer:            outer,
		Snapshot:         func() decision.Snapshot { return *r.view.Load() },
		Names:            table,
		Resolve:          upstream.Resolve,
		Original:         tracked.Original,
		Identify:         func(netip.AddrPort, netip.AddrPort) (identity.Process, error) { return tool, nil },
		IdentifyDatagram: func(netip.AddrPort, netip.AddrPort) (identity.Process, error) { return tool, nil },
		CA:               authority,
		Roots:            sync.OnceValue(func() *x509.CertPool { return roots(t) }),
		Record:           r.record,
		MaxConnections:   256,
		IdleTimeout:      time.Minute,
		HeaderBytes:      64 << 10,
	}
	for _, f := range change {
		f(r, &config)
	}
	r.proxy = New(config)
	r.serve(&names.Server{Table: table, Upstream: upstream, Gate: r, IPv6: true, Local: config.Local != nil})
	if err := netns.Intercept(r.inner, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// serve starts the room's servers, and ends them with the test.
func (r *room) serve(server *names.Server) {
	var transparent, resolvers []*net.TCPListener
	var packets, datagrams []*net.UDPConn
	for _, a := range []netip.Addr{netns.ProxyAddr4, netns.ProxyAddr6} {
		l, err := r.inner.Listen(netip.AddrPortFrom(a, netns.TransparentPort))
		if err != nil {
			r.t.Fatal(err)
		}
		transparent = append(transparent, l)
		if l, err = r.inner.Listen(netip.AddrPortFrom(a, netns.DNSPort)); err != nil {
			r.t.Fatal(err)
		}
		resolvers = append(resolvers, l)
		p, err := r.inner.ListenPacket(netip.AddrPortFrom(a, netns.DNSPort))
		if err != nil {
			r.t.Fatal(err)
		}
		packets = append(packets, p)
		d, err := r.inner.ListenDatagrams(netip.AddrPortFrom(a, netns.DatagramPort))
		if err != nil {
			r.t.Fatal(err)
		}
		datagrams = append(datagrams, d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.proxy.Serve(ctx, transparent, datagrams) })
	wg.Go(func() { server.Serve(ctx, packets, resolvers) })
	r.t.Cleanup(func() {
		cancel()
		wg.Wait()
		if n := r.proxy.open.Load(); n != 0 {
			r.t.Errorf("%d connections are still counted after the proxy ended", n)
		}
	})
}

func roots(t testing.TB) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(internet.CACert())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the test authority's file")
	}
	return pool
}

// dial connects as the workload does: it asks the resolver of the namespace,
// whose address does not matter, and connects to the first answer.
func (r *room) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if addr, err = r.lookup(ctx, host); err != nil {
			return nil, err
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return r.inner.Dial(ctx, "tcp", netip.AddrPortFrom(addr, uint16(n)))
}

func (r *room) lookup(ctx context.Context, host string) (netip.Addr, error) {
	conn, err := r.inner.Dial(ctx, "udp", netip.MustParseAddrPort("8.8.8.8:53"))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	qtype := dns.TypeA
	if r.v6 {
		qtype = dns.TypeAAAA
	}
	client := dns.Client{Timeout: patience}
	answer, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(host), qtype), &dns.Conn{Conn: conn})
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			return netip.MustParseAddr(rr.A.String()), nil
		case *dns.AAAA:
			return netip.MustParseAddr(rr.AAAA.String()), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: %s without an address", host, dns.RcodeToString[answer.Rcode])
}

func (r *room) mustDial(address string) net.Conn {
	r.t.Helper()
	conn, err := r.dial(context.Background(), "tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// dialToBeReset is mustDial for a connection that the proxy resets unasked, so
// soon that connect(2) may find it reset already.
func (r *room) dialToBeReset(address string) net.Conn {
	r.t.Helper()
	conn, err := r.dial(context.Background(), "tcp", address)
	if errors.Is(err, syscall.ECONNRESET) {
		conn, _ = net.Pipe()
		conn.Close()
		return conn
	}
	if err != nil {
		r.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// trust is a TLS client's configuration in the sandbox: its bundle holds the
// system's roots and the sandbox's CA.
func (r *room) trust(host string, protos ...string) *tls.Config {
	pool := roots(r.t)
	pool.AddCert(r.proxy.CA.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: host, NextProtos: protos}
}

func (r *room) mustDialTLS(address string, config *tls.Config) *tls.Conn {
	r.t.Helper()
	conn := tls.Client(r.mustDial(address), config)
	if err := conn.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// client is the workload's HTTP client.
func (r *room) client(http2 bool) *http.Client {
	t := &http.Transport{
		DialContext:         r.dial,
		TLSClientConfig:     r.trust(""),
		ForceAttemptHTTP2:   http2,
		MaxIdleConnsPerHost: 64,
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{
		Transport:     t,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a response, read.
type answer struct {
	*http.Response
	text string
}

func (a answer) echo(t testing.TB) fakenet.Echo {
	t.Helper()
	var e fakenet.Echo
	if err := json.Unmarshal([]byte(a.text), &e); err != nil {
		t.Fatalf("status %d, not an echo: %s", a.StatusCode, a.text)
	}
	return e
}

func (r *room) do(c *http.Client, req *http.Request) answer {
	r.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

func (r *room) request(method, url, body string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *room) get(c *http.Client, url string) answer {
	r.t.Helper()
	return r.do(c, r.request("GET", url, ""))
}

// say writes a request to a connection and reads the response.
func (r *room) say(conn net.Conn, text string) answer {
	r.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("answer to %.40q: %v", text, err)
	}
	if method == "CONNECT" && resp.StatusCode == http.StatusOK {
		return answer{resp, ""}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

func (r *room) record(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, rec)
}

func (r *room) records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// line writes all of a record that tests compare, leaving out what is zero.
func line(rec Record) string {
	words := []string{
		[]string{"connect", "raw", "request", "message"}[rec.Kind],
		[]string{"denied", "allowed", "audited", "logged"}[rec.Outcome],
		rec.Layer,
	}
	if rec.Host != "" {
		words = append(words, net.JoinHostPort(rec.Host, strconv.Itoa(int(rec.Port))))
	}
	if rec.Kind >= Request {
		words = append(words, rec.Method, rec.Scheme+":"+rec.Path, strconv.Itoa(rec.Status))
	}
	for _, w := range []struct{ key, value string }{{"policy=", rec.Policy}, {"tls=", rec.TLS}} {
		if w.value != "" {
			words = append(words, w.key+w.value)
		}
	}
	if rec.UDP {
		words = append(words, "udp")
	}
	if rec.Evidence {
		words = append(words, "EVIDENCE")
	}
	if rec.TLSSkip {
		words = append(words, "skip")
	}
	if rec.Reason != "" {
		words = append(words, "("+rec.Reason+")")
	}
	return strings.Join(words, " ")
}

// await waits until there are n records, and returns what there is: one may come
// a moment after what it is about.
func (r *room) await(n int) []Record {
	for late := time.Now().Add(patience); len(r.records()) < n && time.Now().Before(late); {
		time.Sleep(5 * time.Millisecond)
	}
	return r.records()
}

// nth waits for the record at an index.
func (r *room) nth(i int) Record {
	r.t.Helper()
	all := r.await(i + 1)
	if len(all) <= i {
		r.t.Fatalf("%d records", len(all))
	}
	return all[i]
}

// want waits until the records are the given ones, and checks that no others
// follow. "*" at the end of a line stands for the rest of it.
func (r *room) want(lines ...string) {
	r.t.Helper()
	var got []string
	read := func() bool {
		got = got[:0]
		for _, rec := range r.records() {
			got = append(got, line(rec))
		}
		return slices.EqualFunc(got, lines, func(g, w string) bool {
			prefix, open := strings.CutSuffix(w, "*")
			return g == w || open && strings.HasPrefix(g, prefix)
		})
	}
	r.await(len(lines))
	time.Sleep(20 * time.Millisecond) // nothing tells that no other comes: where it does later, this misses it
	if !read() {
		r.t.Errorf("records:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(lines, "\n  "))
	}
	for _, rec := range r.records() {
		if rec.Layer != LayerLimit && rec.Process.Path != tool.Path && rec.Layer != LayerIdentity {
			r.t.Errorf("record of %+v", rec.Process)
		}
	}
}
