// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// answer has a client get what an origin says to one request, and returns what both read.
func answerOn(t *testing.T, r *room, request, answer string) (seen, got string) {
	t.Helper()
	up, origin := tcpPair(t)
	conn := r.carry(up)
	io.WriteString(conn, request)
	in := bufio.NewReader(origin)
	for line := ""; line != "\r\n"; seen += line {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(origin, answer)
	origin.CloseWrite()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return seen, string(b)
}

const closing = "GET /x HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n"

// Names of header fields arrive as they were written, in both directions.
func TestHeaderNamesKeepTheirSpelling(t *testing.T) {
	r := newRoom(t, permissive(""))
	seen, got := answerOn(t, r, closing+"x-lower: 1\r\nX-jenkins-JNLP: 2\r\nuser-agent: tool/1\r\nACCEPT: */*\r\nx-lower: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-jenkins-CLI: 4\r\netag: x\r\ncontent-type: text/x\r\ndate: Tue, 01 Dec 2026 10:00:00 GMT\r\ncontent-length: 2\r\nSet-cookie: a=b\r\nset-cookie: c=d\r\n\r\nhi")
	for _, want := range []string{"\r\nx-lower: 1\r\n", "\r\nx-lower: 3\r\n", "\r\nX-jenkins-JNLP: 2\r\n", "\r\nuser-agent: tool/1\r\n", "\r\nACCEPT: */*\r\n"} {
		if !strings.Contains(seen, want) {
			t.Errorf("the origin does not see %q in\n%s", want, seen)
		}
	}
	for _, want := range []string{"\r\nX-jenkins-CLI: 4\r\n", "\r\netag: x\r\n", "\r\nContent-Type: text/x\r\n", "\r\nContent-Length: 2\r\n", "\r\nDate: Tue, 01 Dec 2026 10:00:00 GMT\r\n", "\r\nSet-cookie: a=b\r\n", "\r\nSet-cookie: c=d\r\n", "\r\n\r\nhi"} {
		if !strings.Contains(got, want) {
			t.Errorf("the client does not see %q in\n%s", want, got)
		}
	}
	for _, text := range []string{seen, got} {
		for _, name := range []string{"user-agent", "date", "content-length", "host", "accept"} {
			if n := strings.Count(strings.ToLower(text), "\r\n"+name+":"); n > 1 {
				t.Errorf("%s is there %d times in\n%s", name, n, text)
			}
		}
	}
	// Each answer has its own.
	c := r.client(false)
	for range 2 {
		resp := r.get(c, "http://web.example/x")
		resp.echo(t)
		if resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v", resp.Header)
		}
	}
}

// What clients take without us, they get: an answer of an ICY server, a length that is said twice. What could be read
// in two ways stays refused.
func TestOddAnswers(t *testing.T) {
	for name, tt := range map[string]struct{ answer, want string }{
		"ICY":                  {"ICY 200 OK\r\nicy-name: radio\r\nContent-Type: audio/mpeg\r\n\r\nmusic", "\r\nicy-name: radio\r\n"},
		"length twice":         {"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", "Content-Length: 3\r\n"},
		"length thrice":        {"HTTP/1.1 200 OK\r\ncontent-length: 3,3 , 3\r\nX: y\r\n\r\nabc", "\r\n\r\nabc"},
		"length in two fields": {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "\r\n\r\nabc"},
		"behind hints":         {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nx-y: z\r\n\r\nabc", "\r\nx-y: z\r\n"},
		"lengths that differ":  {"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd", "502 Bad Gateway"},
		"lengths and chunks":   {"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\nTransfer-Encoding: gzip\r\n\r\nabcd", "502 Bad Gateway"},
		"an empty length":      {"HTTP/1.1 200 OK\r\nContent-Length: , 3\r\n\r\nabc", "502 Bad Gateway"},
		"no HTTP":              {"ICYX 200 OK\r\n\r\n", "502 Bad Gateway"},
	} {
		r := newRoom(t, permissive(""))
		if _, got := answerOn(t, r, closing+"\r\n", tt.answer); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", name, got, tt.want)
		}
	}
}

// However an answer is cut into pieces, it is the same; and but for its head, nothing is changed.
func FuzzAnswerHeads(f *testing.F) {
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nx-Y: z\r\n\r\nabc"), byte(3))
	f.Add([]byte("ICY 200 OK\n\nContent-Length: 1, 1\r\n\r\n"), byte(1))
	f.Add([]byte("HTTP/1.1 101 X\r\n\r\nICY 200\r\n\r\n"), byte(0))
	f.Fuzz(func(t *testing.T, text []byte, size byte) {
		read := func(r io.Reader) []byte {
			a := new(answers)
			a.asked.Add(1)
			b, err := io.ReadAll(&answerConn{Conn: scripted{r: r}, of: a})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		whole, pieces := read(bytes.NewReader(text)), read(iotest.OneByteReader(bytes.NewReader(text)))
		if !bytes.Equal(whole, pieces) {
			t.Errorf("%q: %q in pieces, %q at once", text, pieces, whole)
		}
		if _, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil); err == nil && !bytes.Equal(whole, text) && !bytes.ContainsAny(text, ",") && !bytes.Contains(text, []byte("ICY ")) {
			t.Errorf("%q, which is well-formed, becomes %q", text, whole)
		}
		if i := endOfHead(text); i >= 0 && !isInformational(text) && !bytes.HasSuffix(whole, text[i:]) {
			t.Errorf("%q: the body is changed: %q", text, whole)
		}
	})
}
