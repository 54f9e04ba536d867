// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"openshell.ai/openshell/internal/decision"
)

// recordingOrigin takes connections, keeps every byte, and understands none.
type recordingOrigin struct {
	l    net.Listener
	want []string // what must come before it answers

	mu    sync.Mutex
	bytes []byte
}

func newRecordingOrigin(t *testing.T, want []string) *recordingOrigin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	o := &recordingOrigin{l: l, want: want}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(conn)
		}
	}()
	return o
}

// serve answers once when all has come that must, and no more comes, whatever it was.
func (o *recordingOrigin) serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	answered, heard := false, false
	for {
		wait := patience
		if heard && !answered && missing(o.saw(), o.want) == "" {
			wait = 100 * time.Millisecond
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buf)
		o.mu.Lock()
		o.bytes = append(o.bytes, buf[:n]...)
		o.mu.Unlock()
		heard = heard || n > 0
		if err == nil {
			continue
		}
		if answered || !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		answered = true
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
}

// missing returns the first of some parts that a text does not have in this order.
func missing(text string, parts []string) string {
	for _, part := range parts {
		var found bool
		if _, text, found = strings.Cut(text, strings.TrimSuffix(part, "\r\n")); !found {
			return part
		}
	}
	return ""
}

func (o *recordingOrigin) saw() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.bytes)
}

const smuggled = "GET /no HTTP/1.1\r\nHost: web.example\r\n\r\n"

// TestSmuggling says to the proxy what some servers read differently from
// others. Either the proxy refuses it, or the origin sees exactly one
// unambiguous request.
func TestSmuggling(t *testing.T) {
	const get, post = "GET /ok/1 HTTP/1.1\r\nHost: web.example\r\n", "POST /post HTTP/1.1\r\nHost: web.example\r\n"
	const chunked = "Transfer-Encoding: chunked\r\n"
	s := newStage(t, fuzzRules)
	s.whole = func(answer []byte) bool {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err == nil
	}
	var plays atomic.Int32
	refused := func(status string) []string { return []string{status} }
	// The second and later strings are what the origin sees of request line,
	// framing and body, in this order; without them it must see nothing.
	for name, tt := range map[string]struct {
		says string
		want []string
	}{
		"both lengths":                   {post + "Content-Length: 40\r\n" + chunked + "\r\n0\r\n\r\n" + smuggled, []string{"200", "POST /post HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "\r\n\r\n0\r\n\r\n"}},
		"two lengths":                    {post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbodyx", refused("400")},
		"one length twice":               {post + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody", []string{"200", "POST /post HTTP/1.1\r\n", "Content-Length: 4\r\n", "\r\n\r\nbody"}},
		"a list of lengths":              {post + "Content-Length: 4, 4\r\n\r\nbody", refused("400")},
		"a signed length":                {post + "Content-Length: +5\r\n\r\nbodyx", refused("400")},
		"a negative length":              {post + "Content-Length: -1\r\n\r\n", refused("400")},
		"a length in hexadecimal":        {post + "Content-Length: 0x4\r\n\r\nbody", refused("400")},
		"a length too large":             {post + "Content-Length: 99999999999999999999\r\n\r\n", refused("400")},
		"an empty length":                {post + "Content-Length:\r\n\r\n" + smuggled, refused("400")},
		"a space before the colon":       {post + "Content-Length : 4\r\n\r\nbody", refused("400")},
		"a tab before the colon":         {post + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", refused("400")},
		"a folded line":                  {get + "X-Folded: a\r\n b\r\n\r\n", []string{"200", "GET /ok/1 HTTP/1.1\r\n", "X-Folded: a b\r\n", "\r\n\r\n"}},
		"a folded line first":            {"GET /ok/1 HTTP/1.1\r\n Host: web.example\r\n\r\n", refused("400")},
		"a folded encoding":              {post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", []string{"200", "POST /post HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "\r\n\r\n0\r\n\r\n"}},
		"a NUL in a value":               {get + "X: a\x00b\r\n\r\n", refused("400")},
		"a NUL in a name":                {get + "X\x00: a\r\n\r\n", refused("400")},
		"a CR in a value":                {get + "X: a\rHost: other\r\n\r\n", refused("400")},
		"no name":                        {get + ": a\r\n\r\n", refused("400")},
		"no colon":                       {get + "Chunked\r\n\r\n", refused("400")},
		"a name with a space":            {get + "Content Length: 4\r\n\r\n", refused("400")},
		"line feeds alone":               {"GET /ok/1 HTTP/1.1\nHost: web.example\n\n", []string{"200", "GET /ok/1 HTTP/1.1\r\n", "Host: web.example\r\n", "\r\n\r\n"}},
		"an encoding of its own":         {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", refused("501")},
		"identity":                       {post + "Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nbody", refused("501")},
		"two encodings":                  {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", refused("501")},
		"chunked twice":                  {post + chunked + chunked + "\r\n0\r\n\r\n", refused("501")},
		"chunked with a quote":           {post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", refused("501")},
		"a vertical tab before chunked":  {post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", refused("400")},
		"chunked in capitals":            {post + "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", []string{"200", "POST /post HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "\r\n\r\n0\r\n\r\n"}},
		"chunked in HTTP/1.0":            {"POST /post HTTP/1.0\r\nHost: web.example\r\n" + chunked + "\r\n0\r\n\r\n" + smuggled, nil},
		"two hosts":                      {get + "Host: other.example\r\n\r\n", refused("400")},
		"no host":                        {"GET /ok/1 HTTP/1.1\r\n\r\n", refused("400")},
		"a list of hosts":                {"GET /ok/1 HTTP/1.1\r\nHost: web.example, other.example\r\n\r\n", refused("4")},
		"a host with a user":             {"GET /ok/1 HTTP/1.1\r\nHost: web.example@other.example\r\n\r\n", refused("4")},
		"another host in absolute form":  {"GET http://web.example/ok/1 HTTP/1.1\r\nHost: other.example\r\n\r\n", []string{"200", "GET /ok/1 HTTP/1.1\r\n", "Host: web.example\r\n", "\r\n\r\n"}},
		"absolute form for another host": {"GET http://other.example/ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("421")},
		"absolute form with a user":      {"GET http://web.example@other.example/ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("421")},
		"Connection names Host":          {get + "Connection: host\r\n\r\n", []string{"200", "GET /ok/1 HTTP/1.1\r\n", "Host: web.example\r\n", "\r\n\r\n"}},
		"Connection names the length":    {post + "Connection: content-length\r\nContent-Length: 40\r\n\r\n" + smuggled, []string{"200", "POST /post HTTP/1.1\r\n", "Content-Length: 40\r\n", "\r\n\r\n" + smuggled}},
		"Connection names the encoding":  {post + "Connection: transfer-encoding\r\n" + chunked + "\r\n0\r\n\r\n", []string{"200", "POST /post HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "\r\n\r\n0\r\n\r\n"}},
		"a request line with spaces":     {"GET /ok/1 /no HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("400")},
		"two spaces":                     {"GET  /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("")},
		"a space first":                  {" GET /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("")},
		"an empty line first":            {"\r\n" + get + "\r\n", refused("")},
		"a version to come":              {"GET /ok/1 HTTP/1.2\r\nHost: web.example\r\n\r\n", nil},
		"a version that never was":       {"GET /ok/1 HTTP/3.0\r\nHost: web.example\r\n\r\n", refused("505")},
		"no version":                     {"GET /ok/1\r\n\r\n", refused("400")},
		"a method in lower case":         {"get /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("")},
		"a method of its own":            {"GE_T /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("403")},
		"the whole server":               {"OPTIONS * HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("403")},
		"CONNECT":                        {"CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\n" + smuggled, refused("405")},
		"CONNECT to another host":        {"CONNECT other.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\n", refused("4")},
		"CONNECT with a path":            {"CONNECT /ok/1 HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("405")},
		"a fragment":                     {"GET /ok/#/no HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("400")},
		"a backslash":                    {"GET /ok/..\\no HTTP/1.1\r\nHost: web.example\r\n\r\n", refused("400")},
		"a body on GET":                  {get + "Content-Length: 40\r\n\r\n" + smuggled, []string{"200", "GET /ok/1 HTTP/1.1\r\n", "Content-Length: 40\r\n", "\r\n\r\n" + smuggled}},
		"a bad chunk":                    {post + chunked + "\r\n4x\r\nbody\r\n0\r\n\r\n", nil},
		"a chunk that ends early":        {post + chunked + "\r\n2\r\nbody\r\n0\r\n\r\n", nil},
		"a chunk of a negative size":     {post + chunked + "\r\n-1\r\n\r\n", nil},
		"a chunk with a long extension":  {post + chunked + "\r\n4;x=y\r\nbody\r\n0\r\n\r\n", []string{"200", "POST /post HTTP/1.1\r\n", "\r\n\r\n4\r\nbody\r\n0\r\n\r\n"}},
		"a trailer that frames":          {post + "Trailer: Content-Length\r\n" + chunked + "\r\n0\r\nContent-Length: 4\r\n\r\n", nil},
		"a header too long":              {get + "X: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", refused("431")},
		"an expectation of its own":      {get + "Expect: smuggling\r\n\r\n", refused("417")},
		"other bytes":                    {get + "X: \xff\xfe\r\n\r\n", []string{"200", "GET /ok/1 HTTP/1.1\r\n", "X: \xff\xfe\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, play := newRecordingOrigin(t, tt.want[min(1, len(tt.want)):]), int(plays.Add(1))
			answer := s.say(t, []byte(tt.says), play, inspected(o.l.Addr().(*net.TCPAddr).AddrPort()))
			saw, recorded := o.saw(), s.recordsOf(play)
			// Whatever else, what is in a body stays there.
			head, _, _ := strings.Cut(saw, "\r\n\r\n")
			if strings.Contains(head, "/no") || strings.Contains(head, "other") {
				t.Fatalf("the origin saw %q", saw)
			}
			if strings.Count(saw, " HTTP/1.1\r\n") > 1 && !strings.Contains(head, "Content-Length: 40") {
				t.Fatalf("the origin saw %q", saw)
			}
			if tt.want == nil { // either way
				return
			}
			if status := tt.want[0]; status != "" && !strings.HasPrefix(string(answer), "HTTP/1.1 "+status) {
				t.Errorf("answer %q", answer)
			}
			if len(tt.want) == 1 {
				if saw != "" {
					t.Errorf("the origin saw %q", saw)
				}
				if !slices.ContainsFunc(recorded, func(rec Record) bool { return rec.Outcome == decision.Denied }) {
					t.Errorf("there is no record of it: %v", recorded)
				}
				return
			}
			if part := missing(saw, tt.want[1:]); part != "" {
				t.Errorf("the origin saw %q without %q", saw, part)
			}
		})
	}
}

// TestSmugglingInHTTP2 sends header fields that HTTP/2 does not allow (RFC 9113
// section 8).
func TestSmugglingInHTTP2(t *testing.T) {
	s := newStage(t, fuzzRules)
	s.whole = func(answer []byte) bool { // the one stream has ended, or the connection
		framer := http2.NewFramer(io.Discard, bytes.NewReader(answer))
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				return false
			}
			switch f.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				return true
			case *http2.HeadersFrame, *http2.DataFrame:
				if f.Header().Flags.Has(http2.FlagDataEndStream) { // which is FlagHeadersEndStream
					return true
				}
			}
		}
	}
	fields := func(more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":authority", "web.example", ":path", "/post"}, more...)
	}
	for name, tt := range map[string]struct {
		fields []string
		body   string
		passes bool
	}{
		"nothing wrong":                {fields(), "body", true},
		"a length":                     {fields("content-length", "4"), "body", true},
		"a length too short":           {fields("content-length", "3"), "body", false},
		"a length too long":            {fields("content-length", "5"), "body", false},
		"two lengths":                  {fields("content-length", "4", "content-length", "5"), "body", false},
		"a signed length":              {fields("content-length", "+4"), "body", false},
		"an encoding":                  {fields("transfer-encoding", "chunked"), "0\r\n\r\n" + smuggled, false},
		"Connection":                   {fields("connection", "close"), "body", false},
		"an upgrade":                   {fields("upgrade", "h2c"), "body", false},
		"TE":                           {fields("te", "gzip"), "body", false},
		"a name in capitals":           {fields("X-Upper", "a"), "body", false},
		"a line break in a value":      {fields("x", "a\r\nhost: other.example"), "body", false},
		"a line break in a name":       {fields("x\r\ny", "a"), "body", false},
		"a colon in a name":            {fields("x:", "a"), "body", false},
		"a pseudo-header behind":       {append([]string{"x", "y"}, fields()...), "body", false},
		"an unknown pseudo-header":     {fields(":protocol2", "x"), "body", false},
		"extended CONNECT":             {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "web.example", ":path", "/ok/ws"}, "", false},
		"CONNECT":                      {[]string{":method", "CONNECT", ":authority", "web.example:80"}, "", false},
		"no path":                      {[]string{":method", "GET", ":scheme", "http", ":authority", "web.example"}, "", false},
		"a path above the root":        {[]string{":method", "POST", ":scheme", "http", ":authority", "web.example", ":path", "/../post"}, "body", false},
		"two paths":                    {append(fields(), ":path", "/no"), "body", false},
		"a path without a slash":       {[]string{":method", "GET", ":scheme", "http", ":authority", "web.example", ":path", "ok/1"}, "", false},
		"a path with a space":          {[]string{":method", "GET", ":scheme", "http", ":authority", "web.example", ":path", "/ok/ HTTP/1.1\r\nx: y"}, "", false},
		"another scheme":               {[]string{":method", "POST", ":scheme", "https", ":authority", "web.example", ":path", "/post"}, "body", true},
		"a host that is not authority": {fields("host", "other.example"), "body", false},
		"another authority":            {[]string{":method", "POST", ":scheme", "http", ":authority", "other.example", ":path", "/post"}, "body", false},
		"a method with a space":        {[]string{":method", "GET /no", ":scheme", "http", ":authority", "web.example", ":path", "/post"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var text bytes.Buffer
			text.WriteString(http2.ClientPreface)
			framer := http2.NewFramer(&text, nil)
			_ = framer.WriteSettings()
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			for i := 0; i < len(tt.fields); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: tt.fields[i], Value: tt.fields[i+1]})
			}
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: tt.body == ""})
			if tt.body != "" {
				_ = framer.WriteData(1, true, []byte(tt.body))
			}
			saw, recorded := s.speak(t, text.Bytes(), inspected)
			want := []sighting{{"POST", "/post", "web.example"}}
			if !tt.passes {
				// A body that turns out wrong does so when the request is on its way.
				if len(saw) > 0 && (!strings.HasPrefix(name, "a length") || !slices.Equal(saw, want)) {
					t.Errorf("the origin saw %v", saw)
				}
				// What is wrong with a body may be known before the request has left.
				denied, failed := 0, false
				for _, rec := range recorded {
					if rec.Outcome == decision.Denied {
						denied++
					}
					failed = failed || rec.Outcome == decision.Denied || rec.Status == http.StatusBadGateway
				}
				// Two, where the body on the refused stream is refused as well.
				if !failed && len(saw) == 0 || denied > 1 && strings.Contains(name, "above the root") {
					t.Errorf("%d records of it: %v", denied, recorded)
				}
				return
			}
			if !slices.Equal(saw, want) {
				t.Errorf("the origin saw %v", saw)
			}
		})
	}
}
