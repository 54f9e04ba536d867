// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/test/fakenet"
)

func shut(t *testing.T, v decision.Snapshot, endpoints ...string) decision.Snapshot {
	t.Helper()
	never, err := engine.ParseEndpoints(endpoints)
	if err != nil {
		t.Fatal(err)
	}
	v.Never = never
	return v
}

func TestNeverEndpointsStayDenied(t *testing.T) {
	r := newRoom(t, shut(t, permissive(""), "web.example:80", "*.nowhere.example"))
	resp := r.get(r.client(false), "http://web.example/x")
	if resp.StatusCode != 403 || !strings.Contains(resp.text, "permissive.never") || strings.Contains(resp.text, "rule_missing") {
		t.Errorf("answer %d %s", resp.StatusCode, resp.text)
	}
	r.get(r.client(false), "https://"+weather+"/ok").echo(t)
	denied, allowed := 0, 0
	for _, rec := range r.await(3) {
		switch {
		case rec.Host == "web.example" && rec.Outcome == decision.Denied && !rec.Evidence && strings.HasPrefix(rec.Reason, "permissive mode never holds for this endpoint (permissive.never): "):
			denied++
		case rec.Host == weather && rec.Outcome == decision.Logged:
			allowed++
		default:
			t.Errorf("record %s", line(rec))
		}
	}
	if denied == 0 || allowed == 0 {
		t.Errorf("%d denied, %d allowed", denied, allowed)
	}
}

// What the policy allows at such an endpoint is allowed; what its rules deny is
// not let through as elsewhere.
func TestNeverEndpointsKeepTheirRules(t *testing.T) {
	for _, v := range []decision.Snapshot{permissive(rest), enforcing(rest)} {
		r := newRoom(t, shut(t, v, weather))
		c := r.client(false)
		r.get(c, "https://"+weather+"/ok/1").echo(t)
		if resp := r.get(c, "https://"+weather+"/no"); resp.StatusCode != 403 {
			t.Errorf("permissive %t: answer %d %s", v.Permissive, resp.StatusCode, resp.text)
		}
		for _, rec := range r.records() {
			if rec.Path == "/no" && (rec.Outcome != decision.Denied || rec.Evidence == v.Permissive) {
				t.Errorf("permissive %t: record %s", v.Permissive, line(rec))
			}
		}
	}
}

func TestNeverKeepsWhatIsNotHTTPOut(t *testing.T) {
	r := newRoom(t, shut(t, permissive("{host: echo.example, port: 7, protocol: rest, access: full}"), "echo.example"))
	conn := r.mustDial("echo.example:7")
	io.WriteString(conn, "\x00")
	ended(t, "a raw connection", conn)
}

// That an endpoint is shut now ends what was let through before.
func TestReconsiderHonoursNever(t *testing.T) {
	v := permissive("")
	r := newRoom(t, v)
	conn := r.mustDial("echo.example:7")
	echoes(t, "a connection", conn)
	r.change(shut(t, v, "echo.example"))
	ended(t, "a connection", conn)
}

// An address is no way around a name either, where the name is said.
func TestNeverNamesAtAnAddress(t *testing.T) {
	address := fakenet.Addrs(weather)[0].String()
	for _, tt := range []struct {
		never  string
		passes bool
	}{{weather, false}, {"*.weather.example:443", false}, {weather + ":444", true}, {"other.example", true}} {
		r := newRoom(t, shut(t, permissive(""), tt.never))
		conn := tls.Client(r.mustDial(net.JoinHostPort(address, "443")), r.trust(weather))
		if err := conn.Handshake(); (err == nil) != tt.passes {
			t.Errorf("never %s: server name: %v", tt.never, err)
		}
		nameless := r.trust(weather)
		nameless.ServerName, nameless.InsecureSkipVerify = "", true
		conn = tls.Client(r.mustDial(net.JoinHostPort(address, "443")), nameless)
		resp := r.say(conn, "GET /x HTTP/1.1\r\nHost: "+strings.ToUpper(weather)+".:443\r\n\r\n")
		if resp.StatusCode == 200 && !tt.passes {
			t.Errorf("never %s: authority: status %d", tt.never, resp.StatusCode)
		}
		for _, seen := range internet.Requests() {
			if !tt.passes {
				t.Errorf("never %s: the origin saw %v", tt.never, seen)
			}
		}
	}
	// A rule for the address is the operator's word.
	r := newRoom(t, shut(t, permissive("{host: "+address+", port: 443, protocol: rest, access: full}"), weather))
	r.say(r.mustDialTLS(net.JoinHostPort(address, "443"), r.trust(weather)), "GET /x HTTP/1.1\r\nHost: "+weather+"\r\n\r\n").echo(t)
}
