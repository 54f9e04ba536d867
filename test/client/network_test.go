// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/fakenet"
)

func TestGet(t *testing.T) {
	n := newNet(t)
	results, code := runClient(t, n, "get", "https://stream.example/early-hints", "https://stream.example/trailers", "https://stream.example/status/403")
	if code != 0 || len(results) != 3 {
		t.Fatalf("%d %+v", code, results)
	}
	hints, trailers, refused := results[0], results[1], results[2]
	if len(hints.Hints) != 1 || hints.Hints[0] != 103 || hints.Proto != "HTTP/2.0" || hints.Issuer != "openshell fakenet CA" {
		t.Errorf("%+v", hints)
	}
	if trailers.Trailer.Get("X-Checksum") != "sum-of-GET" || trailers.Local != hints.Local {
		t.Errorf("no trailer, or not on the same connection: %+v", trailers)
	}
	if refused.Status != 403 || !refused.OK {
		t.Errorf("a status that arrived is no failure: %+v", refused)
	}

	r, code := runOne(t, n, "get", "-http1", "-X", "PUT", "-H", "X-A: b", "-H", "Host: fronted.example", "-d", "body", "https://api.weather.example/p?q=1")
	var echo fakenet.Echo
	if err := json.Unmarshal([]byte(r.Body), &echo); err != nil {
		t.Fatal(err)
	}
	if code != 0 || r.Proto != "HTTP/1.1" || echo.Method != "PUT" || echo.Target != "/p?q=1" || echo.Body != "body" ||
		echo.Header.Get("X-A") != "b" || echo.Host != fakenet.FrontedHost {
		t.Errorf("%d %+v", code, echo)
	}

	r, code = runOne(t, n, "get", "https://stream.example/bytes/200000")
	if code != 0 || r.Bytes != 200000 || len(r.Body) != bodyLimit || len(r.SHA256) != 64 {
		t.Errorf("%d, %d bytes, %d kept, sha256 %q", code, r.Bytes, len(r.Body), r.SHA256)
	}
	n.Reset()
	if r, code = runOne(t, n, "get", "-upload", "200000", "https://stream.example/up"); code != 0 || n.Requests()[0].Body != 200000 {
		t.Errorf("upload: %d %+v", code, n.Requests())
	}
	const redirect = "https://stream.example/redirect?to=https://api.github.example/"
	if r, code = runOne(t, n, "get", redirect); code != 0 || r.Status != 302 {
		t.Errorf("redirect: %d %+v", code, r)
	}
	if r, code = runOne(t, n, "get", "-L", redirect); code != 0 || r.Status != 200 || !strings.Contains(r.Body, fakenet.GitHubHost) {
		t.Errorf("redirect followed: %d %+v", code, r)
	}
}

func TestGetFailures(t *testing.T) {
	n := newNet(t)
	for url, want := range map[string]string{
		"https://expired.example/":  "expired",
		"https://nobody.example/":   "no such host",
		"http://refused.example/":   "connection refused",
		"http://blackhole.example/": "deadline exceeded",
	} {
		wait := "1m"
		if want == "deadline exceeded" {
			wait = "1s"
		}
		if r, code := runOne(t, n, "get", "-t", wait, url); code != 1 || r.OK || !strings.Contains(r.Error, want) {
			t.Errorf("%s: %d %+v", url, code, r)
		}
	}
	// A trust store of its own that the server's certificate is not from.
	if r, code := runOne(t, n, "get", "-ca", "/etc/ssl/certs/ca-certificates.crt", "https://api.weather.example/"); code != 1 || r.OK {
		t.Errorf("own trust store: %d %+v", code, r)
	}
	results, code := runClient(t, n, "get", "http://refused.example/", "http://web.example/")
	if code != 1 || len(results) != 2 || results[0].OK || results[1].Status != 200 {
		t.Errorf("one of two: %d %+v", code, results)
	}
}

func TestRawClients(t *testing.T) {
	n := newNet(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"tcp", "echo.example:7", "hello"}, "hello"},
		{[]string{"tcp", "-e", "-shut", "echo.example:7", `a\r\n\x00"b"`}, "a\r\n\x00\"b\""},
		{[]string{"tcp", "echo.example:7"}, ""},
		{[]string{"banner", "mail.example:25"}, fakenet.MailBanner + "\r\n"},
		{[]string{"udp", "echo.example:7", "hello"}, "hello"},
		{[]string{"udp", "echo.example:443", "hello"}, "hello"},
		{[]string{"tls-raw", "-alpn", "mqtt,x", "-fragment", "50", "tls.example:8883", "hello"}, "hello"},
	} {
		if r, code := runOne(t, n, test.args...); code != 0 || r.Body != test.want || r.Remote == "" {
			t.Errorf("%q: %d %+v", test.args, code, r)
		} else if test.args[0] == "tls-raw" && r.ALPN != "mqtt" {
			t.Errorf("ALPN %q", r.ALPN)
		}
	}
	for _, args := range [][]string{
		{"tcp", "refused.example:7", "hello"},
		{"banner", "-t", "200ms", "echo.example:7"},
		{"udp", "-t", "200ms", "mail.example:25", "hello"},
		{"tls-raw", "-sni", "other.example", "tls.example:8883"},
		{"tls-raw", "-t", "1s", "echo.example:7"},
	} {
		if r, code := runOne(t, n, args...); code != 1 || r.OK || r.Error == "" {
			t.Errorf("%q: %d %+v", args, code, r)
		}
	}
}

func TestLookup(t *testing.T) {
	n := newNet(t)
	server := n.DNS().String()
	for _, test := range []struct {
		args        []string
		rcode, want string
	}{
		{[]string{"dns", "-server", server, "api.weather.example"}, "NOERROR", "45.64.45.10"},
		{[]string{"dns", "-server", server, "-tcp", "api.weather.example", "aaaa"}, "NOERROR", "2a0e:b107:45::a"},
		{[]string{"dns", "text.example", "TXT"}, "NOERROR", `"hello from fakenet"`},
		{[]string{"dns", "nobody.example"}, "NXDOMAIN", ""},
	} {
		if r, code := runOne(t, n, test.args...); code != 0 || r.Rcode != test.rcode || strings.Join(r.Answers, " ") != test.want {
			t.Errorf("%q: %d %+v", test.args, code, r)
		}
	}
	if r, code := runOne(t, n, "dns", "-t", "200ms", "-server", server, "silent.example"); code != 1 || r.OK {
		t.Errorf("silent: %d %+v", code, r)
	}
}

func TestWebSocketClient(t *testing.T) {
	n := newNet(t)
	if r, code := runOne(t, n, "ws", "wss://api.weather.example/ws", "a", "b"); code != 0 || r.Status != 101 || strings.Join(r.Messages, " ") != "a b" {
		t.Errorf("%d %+v", code, r)
	}
	if r, code := runOne(t, n, "ws", "wss://api.weather.example/none", "a"); code != 1 || r.Status != 200 {
		t.Errorf("%d %+v", code, r)
	}
}

// startProxy serves a forward proxy on the outer namespace's loopback that
// refuses one host.
func startProxy(t *testing.T, n *fakenet.Net) string {
	t.Helper()
	const refused = "denied.example"
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.Header.Set("X-Via", "proxy") },
		Transport: n.Client().Transport,
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Host, refused):
			http.Error(w, `{"error":"policy_denied"}`, http.StatusForbidden)
		case r.Method == http.MethodConnect:
			tunnel(t, n, w, r)
		default:
			forward.ServeHTTP(w, r)
		}
	})
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:3128")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func tunnel(t *testing.T, n *fakenet.Net, w http.ResponseWriter, r *http.Request) {
	upstream, err := n.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	w.WriteHeader(http.StatusOK)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	go io.Copy(upstream, buffered)
	io.Copy(conn, upstream)
}

func TestProxyClients(t *testing.T) {
	n := newNet(t)
	proxy := startProxy(t, n)
	r, code := runOne(t, n, "connect-proxy", proxy, "api.weather.example:443", "/through")
	if code != 0 || r.Connect != 200 || r.Status != 200 || !strings.Contains(r.Body, `"target":"/through"`) || r.Issuer == "" {
		t.Errorf("TLS: %d %+v", code, r)
	}
	r, code = runOne(t, n, "connect-proxy", "-plain", proxy, "web.example:80", "/through")
	if code != 0 || r.Connect != 200 || r.Status != 200 || r.Issuer != "" {
		t.Errorf("plain: %d %+v", code, r)
	}
	if r, code = runOne(t, n, "connect-proxy", proxy, "web.example:80"); code != 0 || r.Connect != 200 {
		t.Errorf("only CONNECT: %d %+v", code, r)
	}
	r, code = runOne(t, n, "connect-proxy", proxy, "denied.example:443", "/")
	if code != 0 || r.Connect != 403 || r.Status != 403 || !strings.Contains(r.Body, "policy_denied") {
		t.Errorf("refused: %d %+v", code, r)
	}
	if r, code = runOne(t, n, "connect-proxy", "127.0.0.1:9", "web.example:80"); code != 1 || r.OK {
		t.Errorf("no proxy: %d %+v", code, r)
	}
	r, code = runOne(t, n, "forward-proxy", "-d", "x", proxy, "http://web.example/forward")
	if code != 0 || r.Status != 200 || !strings.Contains(r.Body, `"X-Via":["proxy"]`) || !strings.Contains(r.Body, `"method":"POST"`) {
		t.Errorf("forward: %d %+v", code, r)
	}
	if r, code = runOne(t, n, "forward-proxy", proxy, "http://denied.example/"); code != 0 || r.Status != 403 {
		t.Errorf("forward refused: %d %+v", code, r)
	}
}

func TestListen(t *testing.T) {
	n := newNet(t)
	for _, test := range []struct {
		flags    []string
		ask      []string
		seen     string
		answered string
	}{
		{nil, []string{"tcp", "-shut"}, "hello", "hello"},
		{[]string{"-udp"}, []string{"udp"}, "hello", "hello"},
		{[]string{"-http"}, []string{"get"}, "GET /x", "hello from the container\n"},
	} {
		args := append([]string{"listen", "-n", "1", "-t", "1m"}, test.flags...)
		cmd := clientCommand(t, "", append(args, "172.30.45.2:0")...)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		next := func() (r result) {
			if lines.Scan() {
				if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		at := next()
		if at.Command != "listening" || at.Local == "" {
			t.Fatalf("%q: %+v", args, at)
		}
		ask := append(test.ask, at.Local, "hello")
		if test.ask[0] == "get" {
			ask = []string{"get", "http://" + at.Local + "/x"}
		}
		if r, code := runOne(t, n, ask...); code != 0 || r.Body != test.answered {
			t.Errorf("%q: %d %+v", ask, code, r)
		}
		if r := next(); r.Body != test.seen || !r.OK {
			t.Errorf("%q saw %+v", args, r)
		}
		if r := next(); r.Command != "listen" || !r.OK {
			t.Errorf("%q ended with %+v", args, r)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	start := time.Now()
	if results, code := runClient(t, n, "listen", "-t", "50ms", "127.0.0.1:0"); code != 0 || len(results) != 2 || time.Since(start) > time.Minute {
		t.Errorf("an end that was asked for: %d %+v", code, results)
	}
}
