// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// plays has a test's own origin read one request and say something.
func plays(origin io.ReadWriteCloser, says string) {
	http.ReadRequest(bufio.NewReader(origin))
	io.WriteString(origin, says)
	origin.Close()
}

func TestAnswersKeepTheirHeader(t *testing.T) {
	for says, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<!doctype":                       "",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: x/y\r\n\r\n<!doctype":  "x/y",
		"HTTP/1.1 404 Not Found\r\n\r\n<!doctype":                                     "",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n<!doctype": "",
	} {
		r := newRoom(t, permissive(""))
		up, origin := tcpPair(t)
		go plays(origin, says)
		conn := r.carry(up)
		io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err == nil && resp.StatusCode < 200 {
			resp, err = http.ReadResponse(in, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		if types := resp.Header["Content-Type"]; strings.Join(types, ",") != want {
			t.Errorf("%q: Content-Type %q", says, types)
		}
	}
}

// TestEvidenceOfRequestsThatFail has an origin hang up. Why the policy denies the
// request is what the record says all the same.
func TestEvidenceOfRequestsThatFail(t *testing.T) {
	r := newRoom(t, permissive(""))
	up, origin := tcpPair(t)
	go plays(origin, "")
	if resp := r.say(r.carry(up), "POST /x HTTP/1.1\r\nHost: web.example\r\nContent-Length: 0\r\n\r\n"); resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
	r.want("request logged l4 web.example:80 POST http:/x 502 tls=none EVIDENCE " + empty)
}
