// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"io"
	"net"
	"net/http"
	"time"
)

// recorded writes each request down before h sees it, and counts its body as it
// is read.
func (n *Net) recorded(origin string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := Request{
			Time: time.Now(), Origin: origin, Remote: r.RemoteAddr, Proto: r.Proto,
			Method: r.Method, Host: r.Host, Target: r.RequestURI, Header: r.Header.Clone(),
		}
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			seen.Local = local.String()
		}
		if r.TLS != nil {
			seen.SNI = r.TLS.ServerName
		}
		entry := n.journal.requests.add(seen)
		r.Body = &countedBody{ReadCloser: r.Body, count: n.counter(entry)}
		h.ServeHTTP(w, r)
	})
}

// opened writes a raw connection down; what is read from the returned one counts
// as its body.
func (n *Net) opened(conn net.Conn, origin, proto, sni string) net.Conn {
	entry := n.journal.requests.add(Request{
		Time: time.Now(), Origin: origin, Proto: proto, SNI: sni,
		Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(),
	})
	return &countedConn{Conn: conn, count: n.counter(entry)}
}

func (n *Net) counter(entry *Request) func(int) {
	return func(read int) {
		n.journal.requests.update(entry, func(r *Request) { r.Body += int64(read) })
	}
}

type countedBody struct {
	io.ReadCloser
	count func(int)
}

func (b *countedBody) Read(p []byte) (int, error) {
	read, err := b.ReadCloser.Read(p)
	b.count(read)
	return read, err
}

type countedConn struct {
	net.Conn
	count func(int)
}

func (c *countedConn) Read(p []byte) (int, error) {
	read, err := c.Conn.Read(p)
	c.count(read)
	return read, err
}

// CloseWrite passes on a half-close where the connection has one.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}
