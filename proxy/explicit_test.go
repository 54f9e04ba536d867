// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/test/fakenet"
)

const explicitProxy = "10.200.0.1:3128"

// proxied is an HTTP client that is configured for the explicit proxy.
func (r *room) proxied() *http.Client {
	c := r.client(false)
	c.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: explicitProxy})
	return c
}

func TestConnectTerminates(t *testing.T) {
	r := newRoom(t, permissive(""))
	c := r.proxied()
	r.get(c, "https://"+weather+"/x").echo(t)
	c.CloseIdleConnections()
	r.want(
		"connect logged l4 "+weather+":443 "+empty,
		"request logged l4 "+weather+":443 GET https:/x 200 tls=terminated EVIDENCE "+empty,
	)
}

func TestAbsoluteForm(t *testing.T) {
	r := newRoom(t, enforcing("{host: web.example, port: 80, protocol: rest, access: read-only}"))
	c := r.proxied()
	for range 2 { // on one connection
		e := r.get(c, "http://web.example/a/../x?y=z").echo(t)
		if e.Target != "/a/../x?y=z" || e.Host != "web.example" || len(e.Header["Proxy-Connection"]) > 0 {
			t.Errorf("the origin saw %+v", e)
		}
	}
	resp := r.do(c, r.request("DELETE", "http://web.example/x", ""))
	if resp.StatusCode != 200 {
		t.Errorf("an audited request was answered %d", resp.StatusCode)
	}
	r.want(
		"connect allowed l4 web.example:80 policy=p tls=none",
		"request allowed l7 web.example:80 GET http:/a/../x 200 policy=p tls=none",
		"connect allowed l4 web.example:80 policy=p tls=none",
		"request allowed l7 web.example:80 GET http:/a/../x 200 policy=p tls=none",
		"connect allowed l4 web.example:80 policy=p tls=none",
		"request audited l7 web.example:80 DELETE http:/x 200 policy=p tls=none (DELETE /x not permitted by policy)",
	)
}

func TestConnectSplicesAndKeepsWhatCameWithIt(t *testing.T) {
	r := newRoom(t, enforcing("{host: echo.example, port: 7}"))
	conn := r.mustDial(explicitProxy)
	io.WriteString(conn, "CONNECT echo.example:7 HTTP/1.1\r\nHost: echo.example:7\r\n\r\nearly")
	want := "HTTP/1.1 200 Connection Established\r\n\r\nearly"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v", b, err)
	}
	conn.Close()
	r.want("connect allowed l4 echo.example:7 policy=p")
}

func TestConnectCarriesPlainHTTPAndBanners(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.mustDial(explicitProxy)
	r.say(conn, "CONNECT web.example:8080 HTTP/1.1\r\nHost: web.example:8080\r\n\r\n")
	r.say(conn, "GET /x HTTP/1.1\r\nHost: web.example:8080\r\nConnection: close\r\n\r\n").echo(t)
	conn = r.mustDial(explicitProxy)
	io.WriteString(conn, "CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n\r\n")
	want := "HTTP/1.1 200 Connection Established\r\n\r\n" + fakenet.MailBanner
	b := make([]byte, len(want))
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v", b, err)
	}
	conn.Close()
	r.want(
		"connect logged l4 web.example:8080 "+empty,
		"request logged l4 web.example:8080 GET http:/x 200 tls=none EVIDENCE "+empty,
		"connect logged l4 mail.example:25 "+empty,
		"raw logged l4 mail.example:25 tls=none EVIDENCE "+empty,
	)
}

func TestExplicitProxyIsNoWayAroundTheGuard(t *testing.T) {
	r := newRoom(t, permissive(""))
	for _, target := range []string{
		"127.0.0.1:80", "[::1]:80", "loopback.example:80", "169.254.169.254:80", "10.200.0.1:61001",
		"[::ffff:169.254.169.254]:80", "0.0.0.0:80", "private.example:80", "198.18.9.9:80",
	} {
		resp := r.say(r.mustDial(explicitProxy), "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
		if resp.StatusCode != 403 {
			t.Errorf("CONNECT %s: status %d", target, resp.StatusCode)
		}
		resp = r.say(r.mustDial(explicitProxy), "GET http://"+target+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 403 {
			t.Errorf("GET %s: status %d", target, resp.StatusCode)
		}
	}
	if n := len(internet.Requests()); n != 0 {
		t.Errorf("%d requests got through", n)
	}
	for _, rec := range r.records() {
		if rec.Outcome != decision.Denied || rec.Evidence {
			t.Errorf("record %s", line(rec))
		}
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.mustDial("web.example:80")
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web.example\r\nX: "+strings.Repeat("a", 128<<10)+"\r\n\r\n")
	b, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(b), "HTTP/1.1 431 ") {
		t.Errorf("answer %.60q", b)
	}
}

func TestRefusedTargetsAreRecorded(t *testing.T) {
	r := newRoom(t, permissive(""))
	for _, request := range []string{
		"GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"GET https://web.example/x HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"GET http://web.example:0/x HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"CONNECT web.example HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"CONNECT user@web.example:80 HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"GET http://user@web.example/x HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"GET http://web.example%E3%80%82/x HTTP/1.1\r\nHost: web.example\r\n\r\n",
		"CONNECT 0x2d402d0c:80 HTTP/1.1\r\nHost: web.example\r\n\r\n",
	} {
		if resp := r.say(r.mustDial(explicitProxy), request); resp.StatusCode != 400 {
			t.Errorf("%q: status %d", request, resp.StatusCode)
		}
	}
	r.want(
		"connect denied http-parser "+explicitProxy+" (an HTTP proxy takes CONNECT or a request in absolute form)",
		"connect denied http-parser "+explicitProxy+" (Use CONNECT for HTTPS URLs)",
		"connect denied http-parser "+explicitProxy+" (the URL has no valid host and port)",
		"connect denied http-parser "+explicitProxy+" (CONNECT wants host:port)",
		"connect denied http-parser "+explicitProxy+" (CONNECT wants host:port)",
		"connect denied http-parser "+explicitProxy+" (the URL has no valid host and port)",
		"connect denied http-parser "+explicitProxy+" (the URL has no valid host and port)",
		"connect denied http-parser "+explicitProxy+" (CONNECT wants host:port)",
	)
}
