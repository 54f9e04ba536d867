// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"reflect"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// sameJSON compares a body with the one it must be, whatever the order of keys.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("%v in %q", err, got)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("body %s\nwant %s", got, want)
	}
}

func checkRefusal(t *testing.T, resp answer, status int, body string) {
	t.Helper()
	if resp.StatusCode != status || !resp.Close || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("status %d, header %v; want %d, closed, JSON", resp.StatusCode, resp.Header, status)
	}
	sameJSON(t, resp.text, body)
}

const deniedRequest = `{"error":"policy_denied","policy":"p","rule":"GET /no","detail":"GET /no not permitted by policy",
	"layer":"l7","protocol":"rest","method":"GET","path":"/no","host":"api.weather.example","port":443,"binary":"/usr/bin/tool",
	"rule_missing":{"type":"rest_allow","layer":"l7","method":"GET","path":"/no","host":"api.weather.example","port":443,"binary":"/usr/bin/tool"}}`

func TestRefusalsOverInterceptedConnections(t *testing.T) {
	r := newRoom(t, enforcing(rest))
	c := r.client(false)
	const reason = `"reason":"endpoint web.example:80 is not allowed by any policy"`
	checkRefusal(t, r.get(c, "http://web.example/a?b"), 403,
		`{"error":"policy_denied","detail":"GET web.example:80/a not permitted by policy",`+reason+`}`)
	checkRefusal(t, r.get(c, "https://"+fakenet.GitHubHost+"/a"), 403,
		`{"error":"policy_denied","detail":"GET api.github.example:443/a not permitted by policy",
		"reason":"endpoint api.github.example:443 is not allowed by any policy"}`)
	checkRefusal(t, r.get(c, "https://"+weather+"/no"), 403, deniedRequest)
	checkRefusal(t, r.get(c, "https://"+weather+"/ok/%5C"), 400,
		`{"error":"invalid_request_target","detail":"request-target must be canonical",
		"reason":"request-target contains a backslash, which some servers take for a slash"}`)
	checkRefusal(t, r.say(r.mustDialTLS(weather+":443", r.trust(weather)), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 421,
		`{"error":"request_authority_mismatch","message":"HTTP request authority does not match the authorized tunnel endpoint"}`)
	for _, q := range internet.Queries() {
		if q.Name != weather {
			t.Errorf("a name that no rule knows was looked up: %s", q.Name)
		}
	}
	r.want(
		"request denied l4 web.example:80 GET http:/a 403 tls=none EVIDENCE (endpoint web.example:80 is not allowed by any policy)",
		"request denied l4 api.github.example:443 GET https:/a 403 tls=terminated EVIDENCE (endpoint api.github.example:443 is not allowed by any policy)",
		"connect allowed l4 "+weather+":443 policy=p",
		"request denied l7 "+weather+":443 GET https:/no 403 policy=p tls=terminated EVIDENCE (GET /no not permitted by policy)",
		"connect allowed l4 "+weather+":443 policy=p",
		"request denied http-parser "+weather+":443 GET https: 400 tls=terminated *",
		"connect allowed l4 "+weather+":443 policy=p",
		"request denied request-authority "+weather+":443 GET https:/ 421 tls=terminated *",
	)
}

func TestRefusalsOfConnect(t *testing.T) {
	r := newRoom(t, enforcing(rest+"\n{host: private.example, ports: [80, 6443], allowed_ips: [192.168.0.0/16]}\n{host: refused.example, port: 80}"))
	for _, tt := range []struct {
		target string
		status int
		body   string
	}{
		{"Web.example:443", 403, `{"error":"policy_denied","detail":"CONNECT web.example:443 not permitted by policy","reason":"endpoint web.example:443 is not allowed by any policy"}`},
		{"private.example:80", 403, `{"error":"ssrf_denied","detail":"CONNECT private.example:80 blocked: allowed_ips check failed"}`},
		{"refused.example:80", 502, `{"error":"upstream_unreachable","detail":"connection to refused.example:80 failed"}`},
		{"web.example", 400, `{"error":"invalid_request_target","detail":"CONNECT wants host:port"}`},
		{"web.example:0", 400, `{"error":"invalid_request_target","detail":"CONNECT wants host:port"}`},
	} {
		resp := r.say(r.mustDial("10.200.0.1:3128"), "CONNECT "+tt.target+" HTTP/1.1\r\nHost: "+tt.target+"\r\n\r\n")
		checkRefusal(t, resp, tt.status, tt.body)
	}
	r.want(
		"connect denied l4 web.example:443 EVIDENCE (endpoint web.example:443 is not allowed by any policy)",
		"connect denied ssrf private.example:80 (allowed_ips check failed: 10.45.0.10 is not within the endpoint's allowed_ips)",
		"connect denied upstream refused.example:80 (*",
		"connect denied http-parser "+explicitProxy+" (CONNECT wants host:port)",
		"connect denied http-parser "+explicitProxy+" (CONNECT wants host:port)",
	)
}

func TestRefusalsOfAbsoluteForm(t *testing.T) {
	const endpoint = "{host: web.example, port: 80, path: /api/**, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /api/ok}}]}"
	r := newRoom(t, enforcing(endpoint+"\n{host: private.example, port: 80, allowed_ips: [192.168.0.0/16]}\n{host: refused.example, port: 80}"))
	for _, tt := range []struct {
		target string
		status int
		body   string
	}{
		{"http://other.example/x?y", 403, `{"error":"policy_denied","detail":"GET other.example:80/x not permitted by policy"}`},
		{"http://web.example/else", 403, `{"error":"policy_denied","detail":"GET web.example:80/else did not match an L7 endpoint path"}`},
		{"http://web.example/api/no", 403, `{"error":"policy_denied","detail":"GET web.example:80/api/no denied by L7 policy: GET /api/no not permitted by policy"}`},
		{"http://private.example/", 403, `{"error":"ssrf_denied","detail":"CONNECT private.example:80 blocked: allowed_ips check failed"}`},
		{"http://refused.example/", 502, `{"error":"upstream_unreachable","detail":"connection to refused.example:80 failed"}`},
		{"https://web.example/", 400, `{"error":"invalid_request_target","detail":"Use CONNECT for HTTPS URLs"}`},
		{"/x", 400, `{"error":"invalid_request_target","detail":"an HTTP proxy takes CONNECT or a request in absolute form"}`},
	} {
		resp := r.say(r.mustDial("10.200.0.1:3128"), "GET "+tt.target+" HTTP/1.1\r\nHost: ignored.example\r\n\r\n")
		checkRefusal(t, resp, tt.status, tt.body)
	}
	if len(internet.Requests()) != 0 {
		t.Error("something reached an origin")
	}
}

func TestRefusalWithoutWords(t *testing.T) {
	r := newRoom(t, enforcing(""))
	conn := r.mustDial("mail.example:25") // waits for the server
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
	conn = r.mustDial("echo.example:7")
	conn.Write([]byte("\x00\x01binary"))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
	conn = r.mustDialTLS("tls.example:8883", r.trust("tls.example")) // a refusal that nobody hears
	conn.Close()
	r.want(
		"connect denied l4 mail.example:25 EVIDENCE "+empty,
		"raw denied l4 echo.example:7 tls=none EVIDENCE "+empty,
		"connect denied l4 tls.example:8883 tls=terminated EVIDENCE "+empty,
	)
}
