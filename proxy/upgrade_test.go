// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
)

// upgradeTo asks for another protocol as docker exec does, with a body before it, and returns the answer and
// what reads behind it.
func upgradeTo(t *testing.T, conn net.Conn, names string) (*http.Response, *bufio.Reader) {
	t.Helper()
	io.WriteString(conn, "POST /upgrade/exec HTTP/1.1\r\nHost: "+weather+"\r\nConnection: Upgrade\r\nUpgrade: "+names+
		"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, in
}

const upgradable = "{host: " + weather + ", port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: '/upgrade/**', upgrade: [tcp, SPDY/3.1]}}]}"

// Bytes pass both ways after an upgrade to any protocol that may be, and each side can end its own.
func TestUpgrade(t *testing.T) {
	for _, v := range []decision.Snapshot{permissive(""), permissive(rest), enforcing(upgradable)} {
		for _, names := range []string{"tcp", "SPDY/3.1", "TCP, spdy/3.1"} {
			r := newRoom(t, v)
			conn := r.mustDialTLS(weather+":443", r.trust(weather, "http/1.1"))
			resp, in := upgradeTo(t, conn, names)
			first, _, _ := strings.Cut(names, ",")
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != first {
				t.Fatalf("%s: %d %v", names, resp.StatusCode, resp.Header)
			}
			readLine(t, in, "{}")
			for range 3 {
				text := "\x00\x01 raw " + strings.Repeat("x", 70000) + "\n"
				go io.WriteString(conn, text)
				readLine(t, in, text)
			}
			conn.CloseWrite()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%s: then %q, %v", names, rest, err)
			}
			rec := r.nth(1)
			if rec.Status != 101 || rec.Kind != Request {
				t.Errorf("%s: record %s", names, line(rec))
			}
			lacks := len(rec.Missing) == 1 && rec.Missing[0].Method == "POST" && strings.Join(rec.Missing[0].Upgrade, ", ") == names
			if rec.Evidence != v.Permissive || lacks != v.Permissive {
				t.Errorf("%s: record %s of %+v", names, line(rec), rec.Missing)
			}
		}
	}
}

// Enforcing, an upgrade takes a permission of its own. Without it the request does not get to the origin with
// something left out.
func TestUpgradeIsAPermissionOfItsOwn(t *testing.T) {
	without := strings.Replace(upgradable, ", upgrade: [tcp, SPDY/3.1]", "", 1)
	full := "{host: " + weather + ", port: 443, protocol: rest, enforcement: enforce, access: full}"
	for _, tt := range []struct{ rules, names string }{
		{without, "tcp"}, {full, "tcp"}, {upgradable, "udp"}, {upgradable, "tcp, udp"}, {upgradable, "websocket, tcp"}, {upgradable, "SPDY/3.2"},
	} {
		r := newRoom(t, enforcing(tt.rules))
		resp, _ := upgradeTo(t, r.mustDialTLS(weather+":443", r.trust(weather, "http/1.1")), tt.names)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 403 || !strings.Contains(string(body), "upgrade to ") || !strings.Contains(string(body), "not permitted by policy") {
			t.Errorf("%s: %d %s", tt.names, resp.StatusCode, body)
		}
		if n := len(internet.Requests()); n != 0 {
			t.Errorf("%s: %d requests reached the origin", tt.names, n)
		}
		if rec := r.nth(1); rec.Outcome != decision.Denied || !rec.Evidence || (len(rec.Missing) == 1) == strings.Contains(tt.names, "websocket") {
			t.Errorf("%s: record %s of %+v", tt.names, line(rec), rec.Missing)
		}
	}
	// A request that asks for none is the same rule's.
	r := newRoom(t, enforcing(upgradable))
	if resp := r.do(r.client(false), r.request("POST", "https://"+weather+"/upgrade/x", "")); resp.StatusCode != 426 {
		t.Errorf("%d %s", resp.StatusCode, resp.text)
	}
}

// A policy that takes the permission back ends what it opened.
func TestReconsiderEndsUpgrades(t *testing.T) {
	r := newRoom(t, enforcing(upgradable))
	conn := r.mustDialTLS(weather+":443", r.trust(weather, "http/1.1"))
	if resp, in := upgradeTo(t, conn, "tcp"); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	} else {
		readLine(t, in, "{}")
	}
	r.change(enforcing(strings.Replace(upgradable, "tcp, ", "", 1)))
	ended(t, "an upgraded connection", conn)
}
