// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/decision"
)

// capped is a view whose maximum policy has the given endpoints.
func capped(v decision.Snapshot, endpoints string) decision.Snapshot {
	v.Maximum = compiled(endpoints, false)
	return v
}

const beyond = "exceeds the node's maximum policy: "

func TestMaximumDeniesConnectionsInBothModes(t *testing.T) {
	const both = "{host: web.example, port: 80}\n{host: " + weather + ", port: 443}"
	for _, v := range []decision.Snapshot{enforcing(both), permissive(both), permissive("")} {
		r := newRoom(t, capped(v, "{host: "+weather+", port: 443}"))
		resp := r.get(r.client(false), "http://web.example/x")
		if resp.StatusCode != 403 || !strings.Contains(resp.text, beyond) {
			t.Errorf("answer %d %s", resp.StatusCode, resp.text)
		}
		r.get(r.client(false), "https://"+weather+"/x")
		rec := r.nth(0)
		if rec.Outcome != decision.Denied || rec.Evidence || rec.Reason != beyond+"endpoint web.example:80 is not allowed by any policy" {
			t.Errorf("record %s", line(rec))
		}
		if n := len(internet.Requests()); n != 1 {
			t.Errorf("%d requests reached an origin", n)
		}
	}
}

func TestMaximumDeniesRequestsInBothModes(t *testing.T) {
	const effective = "{host: " + weather + ", port: 443}"
	for _, v := range []decision.Snapshot{enforcing(effective), permissive(effective), permissive("")} {
		r := newRoom(t, capped(v, rest))
		c := r.client(false)
		r.get(c, "https://"+weather+"/ok/1").echo(t)
		resp := r.get(c, "https://"+weather+"/no")
		if resp.StatusCode != 403 || !strings.Contains(resp.text, beyond+"GET /no not permitted by policy") || strings.Contains(resp.text, "rule_missing") {
			t.Errorf("answer %d %s", resp.StatusCode, resp.text)
		}
		for _, rec := range r.records() {
			if rec.Path == "/no" && (rec.Outcome != decision.Denied || rec.Evidence) {
				t.Errorf("record %s", line(rec))
			}
		}
	}
}

func TestMaximumKeepsWhatIsNotHTTPOut(t *testing.T) {
	const effective = "{host: echo.example, port: 7}"
	for _, v := range []decision.Snapshot{enforcing(effective), permissive(effective)} {
		r := newRoom(t, capped(v, "{host: echo.example, port: 7, protocol: rest, access: full}"))
		conn := r.mustDial("echo.example:7")
		io.WriteString(conn, "\x00")
		ended(t, "a raw connection", conn)
		rec := r.nth(1)
		if rec.Kind != Raw || rec.Outcome != decision.Denied || rec.Evidence || v.Permissive && !strings.HasPrefix(rec.Reason, beyond) {
			t.Errorf("record %s", line(rec))
		}
	}
}

func TestMaximumGuardsAddresses(t *testing.T) {
	const private = "{host: private.example, port: 80, allowed_ips: [10.0.0.0/8]}"
	r := newRoom(t, capped(enforcing(private), "{host: private.example, port: 80, allowed_ips: [192.168.0.0/16]}"))
	resp := r.get(r.client(false), "http://private.example/")
	if resp.StatusCode != 403 || !strings.Contains(resp.text, "ssrf_denied") {
		t.Errorf("answer %d %s", resp.StatusCode, resp.text)
	}
	r.want("request denied ssrf private.example:80 GET http:/ 403 tls=none (" + beyond + "allowed_ips check failed*")
}

func TestReconsiderHonoursTheMaximum(t *testing.T) {
	v := permissive("{host: echo.example, port: 7}")
	r := newRoom(t, v)
	echo := r.mustDial("echo.example:7")
	echoes(t, "the connection", echo)
	r.change(capped(v, "{host: echo.example, port: 7}"))
	echoes(t, "the connection", echo)
	r.change(capped(v, "{host: mail.example, port: 25}"))
	ended(t, "the connection", echo)

	v = permissive("")
	r = newRoom(t, v)
	resp, err := r.client(false).Get("http://web.example/drip/100000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r.change(capped(v, "{host: web.example, port: 80, protocol: rest, enforcement: enforce, access: read-write, deny_rules: [{method: GET, path: /drip/**}]}"))
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, resp.Body); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("the stream ended as if it were complete")
		}
	case <-time.After(patience):
		t.Error("the stream is still open")
	}
}
