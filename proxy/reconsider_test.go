// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"openshell.ai/openshell/internal/decision"
)

func (r *room) change(v decision.Snapshot) {
	r.view.Store(&v)
	r.proxy.Reconsider()
}

func ended(t *testing.T, what string, conn io.Reader) {
	t.Helper()
	if c, ok := conn.(net.Conn); ok {
		c.SetReadDeadline(time.Now().Add(patience))
	}
	_, err := conn.Read(make([]byte, 1))
	if err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("%s is still open (%v)", what, err)
	}
}

func echoes(t *testing.T, what string, conn io.ReadWriter) {
	t.Helper()
	conn.Write([]byte("\x00"))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("%s was closed: %v", what, err)
	}
}

func TestReconsiderClosesWhatIsNoLongerAllowed(t *testing.T) {
	const both = "{host: echo.example, port: 7}\n{host: mail.example, port: 25}"
	r := newRoom(t, enforcing(both))
	echo, tunnel, mail := r.mustDial("echo.example:7"), r.mustDial(explicitProxy), r.mustDial("mail.example:25")
	r.say(tunnel, "CONNECT echo.example:7 HTTP/1.1\r\nHost: echo.example:7\r\n\r\n")
	echoes(t, "the connection", echo)
	echoes(t, "the tunnel", tunnel)
	readLine(t, mail, "220 mail.example")
	r.change(enforcing("{host: mail.example, port: 25}"))
	ended(t, "the connection", echo)
	ended(t, "the tunnel", tunnel)
	readLine(t, mail, " ESMTP fakenet\r\n")
	io.WriteString(mail, "NOOP\r\n")
	readLine(t, mail, "250 ok\r\n")
}

func TestReconsiderLeavesPermissiveConnectionsAlone(t *testing.T) {
	r := newRoom(t, enforcing("{host: echo.example, port: 7}"))
	echo := r.mustDial("echo.example:7")
	echoes(t, "the connection", echo)
	r.change(permissive(""))
	echoes(t, "the connection", echo)
}

// TestEndOfPermissiveMode ends what only permissive mode let through: a raw
// connection, a stream, a WebSocket, a download through the explicit proxy.
func TestEndOfPermissiveMode(t *testing.T) {
	r := newRoom(t, permissive(strings.Replace(rest, weather, stream, 1)+"\n{host: echo.example, port: 7, protocol: rest, access: full}"))
	raw := r.mustDial("echo.example:7")
	echoes(t, "the raw connection", raw)
	socket, _, err := websocket.Dial(t.Context(), "https://"+stream+"/ws", &websocket.DialOptions{HTTPClient: r.client(false)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	kept := r.mustDialTLS(stream+":443", r.trust(stream))
	r.say(kept, "GET /ok/kept HTTP/1.1\r\nHost: "+stream+"\r\n\r\n").echo(t)
	get := func(c *http.Client, url string) io.Reader {
		resp, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		io.ReadFull(resp.Body, make([]byte, 10))
		return resp.Body
	}
	h1 := get(r.client(false), "https://"+stream+"/drip/100000")
	h2 := get(r.client(true), "https://"+stream+"/drip/100000")
	forward := get(r.proxied(), "http://web.example/drip/100000")

	v := *r.view.Load()
	v.Permissive = false
	r.change(v)
	ended(t, "the raw connection", raw)
	for what, body := range map[string]io.Reader{"the stream": h1, "the HTTP/2 stream": h2, "the forwarded stream": forward} {
		done := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, body); done <- err }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s ended as if it were complete", what)
			}
		case <-time.After(patience):
			t.Errorf("%s is still open", what)
		}
	}
	if _, _, err := socket.Read(t.Context()); err == nil {
		t.Error("the WebSocket is still open")
	}
	r.say(kept, "GET /ok/again HTTP/1.1\r\nHost: "+stream+"\r\n\r\n").echo(t)
	if resp := r.say(kept, "GET /no HTTP/1.1\r\nHost: "+stream+"\r\n\r\n"); resp.StatusCode != 403 {
		t.Errorf("a kept connection's next request: status %d", resp.StatusCode)
	}
	evidence := map[string]int{}
	for _, rec := range r.records() {
		if rec.Evidence {
			evidence[line(rec)]++
		}
	}
	for _, n := range evidence {
		if n > 2 { // the two /drip/ streams look alike
			t.Errorf("evidence %v", evidence)
		}
	}
}

func TestSpliceEndsWhereInspectionBegins(t *testing.T) {
	r := newRoom(t, enforcing("{host: echo.example, port: 7}"))
	echo := r.mustDial("echo.example:7")
	echoes(t, "the connection", echo)
	r.change(enforcing("{host: echo.example, port: 7, protocol: rest, access: full}"))
	ended(t, "the connection", echo)
}

// TestWhatIsRevokedIsNoEvidence has a rule taken away from under connections: what
// the operator has just forbidden is nothing to be learned.
func TestWhatIsRevokedIsNoEvidence(t *testing.T) {
	r := newRoom(t, enforcing(rest+"\n{host: echo.example, port: 7}"))
	raw := r.mustDial("echo.example:7")
	echoes(t, "the raw connection", raw)
	kept := r.mustDialTLS(weather+":443", r.trust(weather))
	r.say(kept, "GET /ok/1 HTTP/1.1\r\nHost: "+weather+"\r\n\r\n").echo(t)
	r.change(enforcing(""))
	ended(t, "the raw connection", raw)
	ended(t, "the kept connection", kept)
	r.want(
		"connect allowed l4 echo.example:7 policy=p",
		"connect allowed l4 "+weather+":443 policy=p",
		"request allowed l7 "+weather+":443 GET https:/ok/1 200 policy=p tls=terminated",
	)

	// What permissive mode let through is, also where it ends with that.
	for _, first := range []decision.Snapshot{permissive(""), permissive("{host: echo.example, port: 7}")} {
		r = newRoom(t, first)
		idle := r.mustDial("echo.example:7")
		r.await(1)
		r.change(permissive(""))
		r.change(enforcing(""))
		ended(t, "the idle connection", idle)
		r.await(2)
		if last := r.records()[len(r.records())-1]; !last.Evidence || last.Outcome != decision.Logged {
			t.Errorf("record %s", line(last))
		}
	}
}

// TestPolicyThatChangesMeanwhile changes it after a request was decided and before
// it is sent on.
func TestPolicyThatChangesMeanwhile(t *testing.T) {
	for _, first := range []decision.Snapshot{enforcing(rest), permissive("")} {
		var looks atomic.Int32
		r := newRoom(t, first, func(r *room, c *Config) {
			c.Snapshot = func() decision.Snapshot {
				if looks.Add(-1) == 0 {
					v := enforcing("")
					r.view.Store(&v)
				}
				return *r.view.Load()
			}
		})
		conn := r.mustDialTLS(weather+":443", r.trust(weather))
		r.await(1)
		looks.Store(2)
		io.WriteString(conn, "GET /ok/1 HTTP/1.1\r\nHost: "+weather+"\r\n\r\n")
		ended(t, "the connection", conn)
		r.await(2)
		last := r.records()[1]
		if last.Kind != Request || last.Outcome != decision.Denied || last.Evidence || last.Reason != "policy changed" {
			t.Errorf("record %s", line(last))
		}
		if seen := internet.Requests(); len(seen) > 0 {
			t.Errorf("the origin saw %v", seen)
		}
	}
}

// TestReconsiderHoldsAddressesToTheGuard changes which addresses a host may have.
func TestReconsiderHoldsAddressesToTheGuard(t *testing.T) {
	const open, shut = "{host: private.example, port: 80, protocol: rest, access: full, allowed_ips: [10.45.0.0/16, 'fd45::/16']}",
		"{host: private.example, port: 80, protocol: rest, access: full, allowed_ips: [10.46.0.0/16]}"
	for _, v := range []decision.Snapshot{enforcing(shut), permissive(shut), {Effective: compiled("{host: private.example, port: 80, protocol: rest, access: full}", true)}} {
		r := newRoom(t, enforcing(open))
		kept := r.mustDial("private.example:80")
		r.say(kept, "GET /1 HTTP/1.1\r\nHost: private.example\r\n\r\n").echo(t)
		r.change(enforcing(open))
		r.say(kept, "GET /2 HTTP/1.1\r\nHost: private.example\r\n\r\n").echo(t)
		r.change(v)
		ended(t, "the connection", kept)
	}
}
