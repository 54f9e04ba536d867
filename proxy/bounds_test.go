// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whatever carries a connection, and whoever is silent on it, it ends; one on which
// only one end speaks does not.
func TestSilentConnectionsEnd(t *testing.T) {
	idle := func(_ *room, c *Config) { c.IdleTimeout = 300 * time.Millisecond }
	open := map[string]func(r *room) net.Conn{
		"spliced": func(r *room) net.Conn { return r.mustDial("echo.example:7") },
		"tunnelled": func(r *room) net.Conn {
			conn := r.mustDial("10.200.0.1:3128")
			r.say(conn, "CONNECT echo.example:7 HTTP/1.1\r\nHost: echo.example:7\r\n\r\n")
			return conn
		},
		"terminated": func(r *room) net.Conn { return r.mustDialTLS("tls.example:8883", r.trust("tls.example")) },
	}
	for name, dial := range open {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, permissive(""), idle)
			conn := dial(r)
			if _, err := io.WriteString(conn, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %d, %v", n, err)
			}
			told := false
			for _, rec := range r.records() {
				told = told || rec.Layer == LayerLimit && strings.Contains(rec.Reason, "limits.idle_timeout")
			}
			if !told {
				t.Error("nothing of it is recorded")
			}
		})
	}
}

// Headers that are not complete take memory that all connections share. It is
// given back with the connections, and with each request's end.
func TestHeadersAreBounded(t *testing.T) {
	r := newRoom(t, permissive(""))
	r.proxy.headers.Acquire(t.Context(), maxHeaders-64<<10)
	free := func() bool {
		ok := r.proxy.headers.TryAcquire(64 << 10)
		if ok {
			r.proxy.headers.Release(64 << 10)
		}
		return ok
	}
	conn := r.mustDial("web.example:80")
	for range 3 {
		r.say(conn, "GET / HTTP/1.1\r\nHost: web.example\r\n"+strings.Repeat("a:b\r\n", 100)+"\r\n")
		eventually(t, "an answered request gives its header's memory back", free)
	}
	flood := r.mustDial("web.example:80")
	_, _ = io.WriteString(flood, "GET / HTTP/1.1\r\nHost: web.example\r\n"+strings.Repeat("a:b\r\n", 1000))
	if n, err := flood.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d", n)
	}
	eventually(t, "a closed connection gives its header's memory back", free)
	if r.say(conn, "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").StatusCode != 200 {
		t.Error("another connection is not served")
	}
}

// Where there is no memory left, the connections that came last go first.
func TestShed(t *testing.T) {
	r := newRoom(t, permissive(""))
	var conns []net.Conn
	for range 2 * shedPart {
		conn := r.mustDial("echo.example:7")
		_, _ = io.WriteString(conn, "x")
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	r.proxy.shed()
	for i, conn := range conns {
		_, _ = io.WriteString(conn, "y")
		_, err := io.ReadFull(conn, make([]byte, 1))
		if kept := i < len(conns)-2; kept != (err == nil) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
