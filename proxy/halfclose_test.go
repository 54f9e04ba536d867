// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/decision"
)

// A client that has ended its side gets its answer all the same: to a request, however long the origin thinks, to
// one over TLS, and from a server that speaks without being asked.
func TestHalfClosedClientsAreAnswered(t *testing.T) {
	const open = "{host: web.example, port: 80, protocol: rest, access: full}\n{host: " + weather + ", port: 443, protocol: rest, access: full}\n{host: mail.example, port: 25}"
	for _, v := range []decision.Snapshot{permissive(""), enforcing(open)} {
		r := newRoom(t, v)
		for name, tt := range map[string]struct {
			conn      net.Conn
			say, want string
		}{
			"HTTP":         {r.mustDial("web.example:80"), "GET /x HTTP/1.0\r\nHost: web.example\r\n\r\n", "200 OK"},
			"with a body":  {r.mustDial("web.example:80"), "POST /x HTTP/1.1\r\nHost: web.example\r\nContent-Length: 2\r\n\r\nhi", `"body":"hi"`},
			"slow":         {r.mustDial("web.example:80"), "GET /slow/300ms HTTP/1.1\r\nHost: web.example\r\n\r\n", "200 OK"},
			"drip":         {r.mustDial("web.example:80"), "GET /drip/20 HTTP/1.1\r\nHost: web.example\r\n\r\n", "200 OK"},
			"TLS":          {r.mustDialTLS(weather+":443", r.trust(weather, "http/1.1")), "GET /slow/300ms HTTP/1.1\r\nHost: " + weather + "\r\n\r\n", "200 OK"},
			"explicit":     {r.mustDial("10.200.0.1:3128"), "GET http://web.example/slow/300ms HTTP/1.1\r\nHost: web.example\r\n\r\n", "200 OK"},
			"server first": {r.mustDial("mail.example:25"), "", "220 "},
		} {
			io.WriteString(tt.conn, tt.say)
			if err := tt.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(tt.conn)
			if err != nil || !strings.Contains(string(answer), tt.want) {
				t.Errorf("permissive %v: %s: %q, %v", v.Permissive, name, answer, err)
			}
		}
	}
}

// An origin learns that a client has left which may still be waiting, so that neither waits for ever.
func TestOriginsAreToldOfClientsThatLeft(t *testing.T) {
	r := newRoom(t, permissive(""))
	up, origin := tcpPair(t)
	conn := r.carry(up)
	io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n")
	in := bufio.NewReader(origin)
	if _, err := http.ReadRequest(in); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_ = origin.SetReadDeadline(time.Now().Add(patience))
	if n, err := in.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the origin reads %d, %v", n, err)
	}
}
