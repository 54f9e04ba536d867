// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// teeListener keeps what its connections read.
type teeListener struct {
	net.Listener

	mu    sync.Mutex
	conns []*teeConn
}

func (l *teeListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tee := &teeConn{Conn: conn}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, tee)
	return tee, nil
}

// read returns what each connection read.
func (l *teeListener) read() (all [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		all = append(all, bytes.Clone(c.text))
		c.mu.Unlock()
	}
	return all
}

// awaitEnd waits until all connections in HTTP/1 are closed.
func (l *teeListener) awaitEnd(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		eventually(t, "the origin's connection has ended", c.ended)
	}
}

type teeConn struct {
	net.Conn

	mu     sync.Mutex
	text   []byte
	closed bool
}

func (c *teeConn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || bytes.HasPrefix(c.text, []byte("PRI *"))
}

// Close implements net.Conn.
func (c *teeConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *teeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, b[:n]...)
	return n, err
}

var (
	strictLine   = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*) HTTP/1\\.1$")
	strictHeader = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$")
	strictLength = regexp.MustCompile("^[0-9]{1,18}$")
	strictChunk  = regexp.MustCompile("^[0-9a-f]{1,15}$")
)

// strictRequests reads a connection as the strictest server would: what any two
// servers could read differently is an error. What is cut off is not.
func strictRequests(text []byte) (requests []sighting, err error) {
	for len(text) > 0 {
		head, rest, whole := bytes.Cut(text, []byte("\r\n\r\n"))
		if !whole {
			return requests, nil
		}
		lines := strings.Split(string(head), "\r\n")
		line := strictLine.FindStringSubmatch(lines[0])
		if line == nil {
			return requests, fmt.Errorf("request line %q", lines[0])
		}
		header := map[string][]string{}
		for _, l := range lines[1:] {
			field := strictHeader.FindStringSubmatch(l)
			if field == nil {
				return requests, fmt.Errorf("header line %q", l)
			}
			name := strings.ToLower(field[1])
			header[name] = append(header[name], field[2])
		}
		if len(header["host"]) != 1 {
			return requests, fmt.Errorf("hosts %q", header["host"])
		}
		requests = append(requests, sighting{line[1], line[2], header["host"][0]})
		if text, whole, err = strictBody(header, rest); err != nil || !whole {
			return requests, err
		}
	}
	return requests, nil
}

// strictBody returns what is behind a body.
func strictBody(header map[string][]string, text []byte) (rest []byte, whole bool, err error) {
	length, coding := header["content-length"], header["transfer-encoding"]
	switch {
	case len(length)+len(coding) > 1:
		return nil, false, fmt.Errorf("lengths %q and encodings %q", length, coding)
	case len(length) == 1:
		if !strictLength.MatchString(length[0]) {
			return nil, false, fmt.Errorf("length %q", length)
		}
		n, err := strconv.Atoi(length[0])
		if err != nil || n > len(text) {
			return nil, false, err
		}
		return text[n:], true, nil
	case len(coding) == 0:
		return text, true, nil
	case coding[0] != "chunked":
		return nil, false, fmt.Errorf("encoding %q", coding)
	}
	for {
		line, rest, whole := bytes.Cut(text, []byte("\r\n"))
		if !whole {
			return nil, false, nil
		}
		if !strictChunk.Match(line) {
			return nil, false, fmt.Errorf("chunk %q", line)
		}
		n, err := strconv.ParseInt(string(line), 16, 64)
		if err != nil {
			return nil, false, err
		}
		if n == 0 {
			return strictTrailer(rest)
		}
		if int64(len(rest)) < n+2 {
			return nil, false, nil
		}
		if string(rest[n:n+2]) != "\r\n" {
			return nil, false, fmt.Errorf("chunk of %d bytes %q", n, rest[:n+2])
		}
		text = rest[n+2:]
	}
}

func strictTrailer(text []byte) (rest []byte, whole bool, err error) {
	for {
		line, rest, whole := bytes.Cut(text, []byte("\r\n"))
		if !whole || len(line) == 0 {
			return rest, whole, nil
		}
		field := strictHeader.FindSubmatch(line)
		if field == nil {
			return nil, false, fmt.Errorf("trailer %q", line)
		}
		switch name := strings.ToLower(string(field[1])); name {
		case "host", "content-length", "transfer-encoding", "trailer":
			return nil, false, fmt.Errorf("trailer %q", line)
		}
		text = rest
	}
}

func TestStrictRequests(t *testing.T) {
	for text, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n": 1,
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyzGET /2 HTTP/1.1\r\nHost:a\r\n\r\n":       2,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\nPOST": 1,
		"GET / HTTP/1.1\r\nHost: a":                                                            0,
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n":                                                    -1,
		"GET / HTTP/1.1\nHost: a\r\n\r\n":                                                      -1,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":                                         -1,
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n":                                                   -1,
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n":                              -1,
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n":                      -1,
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n": -1,
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi0\r\n\r\n":      -1,
	} {
		got, err := strictRequests([]byte(text))
		if (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
