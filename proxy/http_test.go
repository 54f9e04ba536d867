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

const (
	weather   = fakenet.WeatherHost
	notListed = "(endpoint " + weather + ":443 is not allowed by any policy)"
	empty     = "(network connections not allowed by policy)"
	rest      = "{host: " + weather + ", port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /ok/**}}]}"
)

func TestTransparentHTTP(t *testing.T) {
	r := newRoom(t, permissive(""))
	c := r.client(false)
	got := r.get(c, "http://web.example/a//b/../c%7Ed?x=%31&y").echo(t)
	if got.Target != "/a//b/../c%7Ed?x=%31&y" || got.Host != "web.example" || got.Proto != "HTTP/1.1" {
		t.Errorf("the origin saw %+v", got)
	}
	r.want(
		"connect logged l4 web.example:80 "+empty,
		"request logged l4 web.example:80 GET http:/a//b/../c~d 200 tls=none EVIDENCE "+empty,
	)
	rec := r.records()[1]
	if len(rec.Addrs) != 2 || rec.Addrs[0] != fakenet.Addrs("web.example")[0] || rec.Process.SHA256 != tool.SHA256 || rec.Time.IsZero() {
		t.Errorf("record %+v", rec)
	}
}

func TestRequestReachesTheOriginUnchanged(t *testing.T) {
	r := newRoom(t, permissive(""))
	req := r.request("POST", "https://"+weather+"/x", "body")
	req.Header = http.Header{"X-Forwarded-For": {"1.2.3.4"}, "Cookie": {"a=b"}, "User-Agent": {"tool/1"}, "X-Twice": {"1", "2"}}
	got := r.do(r.client(false), req).echo(t)
	for name, want := range map[string]string{
		"X-Forwarded-For": "1.2.3.4", "Cookie": "a=b", "User-Agent": "tool/1", "X-Twice": "1,2",
		"Accept-Encoding": "gzip", // the client's own
	} {
		if have := strings.Join(got.Header[name], ","); have != want {
			t.Errorf("%s: %q, want %q", name, have, want)
		}
	}
	if len(got.Header) != 6 || got.Body != "body" || got.Header.Get("Content-Length") != "4" {
		t.Errorf("the origin saw %v and body %q", got.Header, got.Body)
	}
}

func TestPermissiveTerminatesWhatNoPolicyDeclares(t *testing.T) {
	r := newRoom(t, permissive("{host: other.example, port: 443}"))
	c := r.client(false)
	resp := r.get(c, "https://"+weather+"/v1/today?key=secret")
	if e := resp.echo(t); e.Target != "/v1/today?key=secret" {
		t.Errorf("the origin saw %q", e.Target)
	}
	if issuer := resp.TLS.PeerCertificates[0].Issuer.CommonName; issuer != "OpenShell Sandbox CA" {
		t.Errorf("the client saw a certificate of %q", issuer)
	}
	r.get(c, "https://"+weather+"/v1/today")
	c.CloseIdleConnections()
	r.want(
		"connect logged l4 "+weather+":443 "+notListed,
		"request logged l4 "+weather+":443 GET https:/v1/today 200 tls=terminated EVIDENCE "+notListed,
		"request logged l4 "+weather+":443 GET https:/v1/today 200 tls=terminated EVIDENCE "+notListed,
	)
}

func TestEveryRequestOfAConnectionIsDecided(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRoom(t, enforcing(rest))
		c := r.client(http2)
		for range 2 {
			if e := r.get(c, "https://"+weather+"/ok/1").echo(t); (e.Proto == "HTTP/2.0") != http2 {
				t.Errorf("the origin was spoken to in %s", e.Proto)
			}
		}
		resp := r.get(c, "https://"+weather+"/no")
		if resp.StatusCode != 403 || resp.Header.Get("X-OpenShell-Policy") != "p" {
			t.Errorf("answer %d %v", resp.StatusCode, resp.Header)
		}
		if n := len(internet.Requests()); n != 2 {
			t.Errorf("the origin saw %d requests", n)
		}
		r.want(
			"connect allowed l4 "+weather+":443 policy=p",
			"request allowed l7 "+weather+":443 GET https:/ok/1 200 policy=p tls=terminated",
			"request allowed l7 "+weather+":443 GET https:/ok/1 200 policy=p tls=terminated",
			"request denied l7 "+weather+":443 GET https:/no 403 policy=p tls=terminated EVIDENCE (GET /no not permitted by policy)",
		)
	}
}

func TestAuditAndPermissiveOnADeclaredEndpoint(t *testing.T) {
	audit := strings.Replace(rest, "enforcement: enforce", "enforcement: audit", 1)
	for _, tt := range []struct {
		view decision.Snapshot
		want string
	}{
		{enforcing(audit), "audited l7 " + weather + ":443 GET https:/no 200 policy=p tls=terminated (GET /no not permitted by policy)"},
		{permissive(rest), "logged l7 " + weather + ":443 GET https:/no 200 policy=p tls=terminated EVIDENCE (GET /no not permitted by policy)"},
	} {
		r := newRoom(t, tt.view)
		r.get(r.client(false), "https://"+weather+"/no").echo(t)
		r.want("connect allowed l4 "+weather+":443 policy=p", "request "+tt.want)
	}
}

func TestHostMismatchIsMisdirected(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(rest), permissive("")} {
		for _, request := range []string{
			"GET /ok/1 HTTP/1.1\r\nHost: fronted.example\r\n\r\n",
			"GET /ok/1 HTTP/1.1\r\nHost: " + weather + ":444\r\n\r\n",
			"GET https://fronted.example/ok/1 HTTP/1.1\r\nHost: " + weather + "\r\n\r\n",
			"GET https://user@" + weather + "/ok/1 HTTP/1.1\r\nHost: " + weather + "\r\n\r\n",
			"GET /ok/1 HTTP/1.1\r\nHost: " + weather + ":+443\r\n\r\n",
			"GET /ok/1 HTTP/1.1\r\nHost: " + weather + ":\r\n\r\n",
			"GET /ok/1 HTTP/1.1\r\nHost: " + weather + "..\r\n\r\n",
		} {
			r := newRoom(t, v)
			resp := r.say(r.mustDialTLS(weather+":443", r.trust(weather)), request)
			if resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("%q: status %d", request, resp.StatusCode)
			}
			if n := len(internet.Requests()); n != 0 {
				t.Errorf("%q reached the origin", request)
			}
			rec := r.nth(1)
			if rec.Outcome != decision.Denied || rec.Layer != LayerAuthority || rec.Evidence || rec.Status != 421 {
				t.Errorf("record %s", line(rec))
			}
		}
	}
}

func TestSameHostInOtherWordsPasses(t *testing.T) {
	r := newRoom(t, enforcing(rest))
	for _, request := range []string{
		"GET /ok/1 HTTP/1.1\r\nHost: API.Weather.Example:443\r\nConnection: close\r\n\r\n",
		"GET /ok/1 HTTP/1.1\r\nHost: api.weather.example.\r\nConnection: close\r\n\r\n",
		"GET /ok/1 HTTP/1.1\r\nHost: api.weather.example.:0443\r\nConnection: close\r\n\r\n",
		"GET https://api.weather.example/ok/1 HTTP/1.1\r\nHost: ignored.example\r\nConnection: close\r\n\r\n",
		"GET https://API.weather.example.:00443/ok/1 HTTP/1.1\r\nHost: ignored.example\r\nConnection: close\r\n\r\n",
		"GET /ok/1 HTTP/1.0\r\n\r\n",
	} {
		resp := r.say(r.mustDialTLS(weather+":443", r.trust(weather)), request)
		if resp.StatusCode != 200 {
			t.Errorf("%q: status %d %s", request, resp.StatusCode, resp.text)
			continue
		}
		if e := resp.echo(t); e.Target != "/ok/1" || e.Host != weather && e.Host != weather+":443" {
			t.Errorf("%q: the origin saw %s of %q", request, e.Target, e.Host)
		}
	}
}

func TestMalformedTargetsAreRefusedInBothModes(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(rest), permissive("")} {
		for _, target := range []string{"/ok/../../etc", "/ok/%00", "/ok/%zz", "*", "/ok/#frag"} {
			r := newRoom(t, v)
			conn := r.mustDialTLS(weather+":443", r.trust(weather))
			resp := r.say(conn, "GET "+target+" HTTP/1.1\r\nHost: "+weather+"\r\n\r\n")
			if resp.StatusCode != 400 {
				t.Errorf("%s: status %d", target, resp.StatusCode)
			}
			if len(internet.Requests()) != 0 {
				t.Errorf("%s reached the origin", target)
			}
		}
	}
}

// Whatever a client signs arrives byte for byte, in both versions of HTTP.
func TestTargetsArriveAsSent(t *testing.T) {
	r := newRoom(t, enforcing(strings.Replace(rest, "method: GET, path: /ok/**", "method: '*', path: '**'", 1)))
	for _, http2 := range []bool{false, true} {
		for _, target := range []string{
			"/model/anthropic.x-v1%3A0/invoke", "/bucket/a//b", "//bucket//b", "/bucket/x%2Cy", "/x;v=1/y;jsessionid=AB", "/a/../b/./c",
			"/a?", "/%7euser?x=%7e;y", "/a%2520b", "/a[0]'()", "/.//", "/%e5%a5%bd/%2f",
		} {
			req := r.request("GET", "https://"+weather+"/", "")
			path, query, asks := strings.Cut(target, "?")
			req.URL.RawPath, req.URL.RawQuery, req.URL.ForceQuery = path, query, asks
			req.URL.Path, _ = url.PathUnescape(path)
			if e := r.do(r.client(http2), req).echo(t); e.Target != target {
				t.Errorf("%s arrived as %s (%s)", target, e.Target, e.Proto)
			}
		}
		req := r.request("OPTIONS", "https://"+weather+"/", "")
		req.URL.Opaque = "*"
		if resp := r.do(r.client(http2), req); resp.StatusCode != 200 || resp.text != "" { // Go's server answers itself
			t.Errorf("OPTIONS *: %d %s", resp.StatusCode, resp.text)
		}
	}
}

func TestEncodedSlash(t *testing.T) {
	const uri = "https://" + weather + "/ok/@a%2fb"
	narrow := strings.Replace(rest, "/ok/**", "'/ok/*'", 1)
	r := newRoom(t, enforcing(narrow))
	if resp := r.get(r.client(false), uri); resp.StatusCode != 403 || !strings.Contains(resp.text, `"rule_missing":`) || !strings.Contains(resp.text, "/ok/@a/b") {
		t.Errorf("where a rule allows it only as one segment: status %d %s", resp.StatusCode, resp.text)
	}
	r = newRoom(t, enforcing(rest))
	if e := r.get(r.client(false), uri).echo(t); e.Target != "/ok/@a%2fb" {
		t.Errorf("allowed however it is read: the origin saw %s", e.Target)
	}
	r = newRoom(t, permissive(""))
	if e := r.get(r.client(false), uri).echo(t); e.Target != "/ok/@a%2fb" {
		t.Errorf("permissive: the origin saw %s", e.Target)
	}
	r.want(
		"connect logged l4 "+weather+":443 "+empty,
		"request logged l4 "+weather+":443 GET https:/ok/@a%2Fb 200 tls=terminated EVIDENCE "+empty,
	)
	if missing := r.records()[1].Missing; len(missing) != 2 || missing[0].Path != "/ok/@a%2Fb" || missing[1].Path != "/ok/@a/b" {
		t.Errorf("to be learned: %+v", missing)
	}
	r = newRoom(t, enforcing(strings.Replace(narrow, "protocol:", "allow_encoded_slash: true, protocol:", 1)))
	if e := r.get(r.client(false), uri).echo(t); e.Target != "/ok/@a%2fb" {
		t.Errorf("allowed: the origin saw %s", e.Target)
	}
}

func TestIPv6(t *testing.T) {
	r := newRoom(t, permissive(""))
	r.v6 = true
	c := r.client(false)
	r.get(c, "https://"+fakenet.IPv6OnlyHost+"/six").echo(t)
	if local := internet.Requests()[0].Local; !strings.HasPrefix(local, "[2a0e:") {
		t.Errorf("reached %s", local)
	}
	r.want(
		"connect logged l4 "+fakenet.IPv6OnlyHost+":443 *",
		"request logged l4 "+fakenet.IPv6OnlyHost+":443 GET https:/six 200 tls=terminated EVIDENCE *",
	)
}

func TestAddressesWithoutNames(t *testing.T) {
	r := newRoom(t, enforcing("{host: 45.64.45.12, port: 80, protocol: rest, access: read-only}"))
	c := r.client(false)
	r.get(c, "http://45.64.45.12/x").echo(t)
	if resp := r.get(c, "http://45.64.45.13/x"); resp.StatusCode != 403 {
		t.Errorf("another address: status %d", resp.StatusCode)
	}
	if resp := r.get(c, "http://198.18.77.77/x"); resp.StatusCode != 403 {
		t.Errorf("an address of no name: status %d", resp.StatusCode)
	}
	r.want(
		"connect allowed l4 45.64.45.12:80 policy=p",
		"request allowed l7 45.64.45.12:80 GET http:/x 200 policy=p tls=none",
		"request denied l4 45.64.45.13:80 GET http:/x 403 tls=none EVIDENCE (endpoint 45.64.45.13:80 is not allowed by any policy)",
		"request denied connection 198.18.77.77:80 GET http:/x 403 tls=none (the address belongs to no name of this sandbox)",
	)
}

func TestUpstreamFailures(t *testing.T) {
	r := newRoom(t, permissive(""))
	c := r.client(false)
	resp := r.get(c, "http://refused.example/x")
	if resp.StatusCode != 502 || resp.text != `{"error":"upstream_unreachable","detail":"connection to refused.example:80 failed"}`+"\n" {
		t.Errorf("answer %d %s", resp.StatusCode, resp.text)
	}
	r.want("request denied upstream refused.example:80 GET http:/x 502 tls=none (*")
}

func TestKeptConnectionOutlivesTheOrigins(t *testing.T) {
	r := newRoom(t, permissive(""))
	c := r.client(false)
	r.get(c, "http://web.example/1").echo(t)
	r.await(2) // the origin's connection is idle by then
	r.proxy.mu.Lock()
	for f := range r.proxy.flows {
		f.http.Load().transport.CloseIdleConnections()
	}
	r.proxy.mu.Unlock()
	r.get(c, "http://web.example/2").echo(t)
	seen := internet.Requests()
	if len(seen) != 2 || seen[0].Remote == seen[1].Remote {
		t.Errorf("the origin saw %v", seen)
	}
	c.CloseIdleConnections()
	r.want(
		"connect logged l4 web.example:80 "+empty,
		"request logged l4 web.example:80 GET http:/1 200 tls=none EVIDENCE "+empty,
		"request logged l4 web.example:80 GET http:/2 200 tls=none EVIDENCE "+empty,
	)
}

func TestMalformedHTTPIsAnsweredAndGoesNoFurther(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.mustDial("web.example:80")
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web.example\r\nHost: other.example\r\n\r\n")
	b, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("answer %q", b)
	}
	if len(internet.Requests()) != 0 {
		t.Error("it reached the origin")
	}
	r.want("connect logged l4 web.example:80 "+empty,
		"connect denied http-parser web.example:80 tls=none (malformed request: 400 Bad Request)")
}
