// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// connListener is a listener whose connections are given to it: it lets net/http serve connections that the
// proxy has already looked into.
type connListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// enqueue gives a connection to whoever accepts next.
func (l *connListener) enqueue(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *connListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *connListener) Addr() net.Addr { return &net.TCPAddr{} }

// flowConn is a client's connection: it begins with bytes that were read
// before, and its end is its flow's end.
type flowConn struct {
	net.Conn
	flow   *tcpFlow
	prefix []byte
}

func newFlowConn(client clientConn, f *tcpFlow) *flowConn {
	return &flowConn{Conn: client.TCPConn, flow: f, prefix: client.said}
}

// Read implements net.Conn.
func (c *flowConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.prefix = nil // it would be kept for as long as the connection
		}
		return n, nil
	}
	return c.Conn.Read(b)
}

// Close implements net.Conn.
func (c *flowConn) Close() error {
	err := c.Conn.Close()
	c.flow.finish()
	return err
}

// CloseWrite ends the client's reading, where the connection can. net/http
// looks for it before it closes a connection with something unread on it,
// because that would take back its last answer.
func (c *flowConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// serverConn is a client's connection as an HTTP/1 server has it, in clear. It
// notices what the server says on its own account: an answer to a request that
// no handler saw is a refusal of one that could not be read.
type serverConn struct {
	net.Conn
	flow    *httpFlow
	between atomic.Bool  // no request has reached a handler since the last answer
	header  atomic.Int64 // of Proxy.headers, for the request that is read or answered

	halfClose halfClose

	// These are the goroutine's that serves the connection.
	head  []byte   // read since the last answer
	names spelling // of the request that is answered
}

func newServerConn(conn net.Conn, h *httpFlow) *serverConn {
	c := &serverConn{Conn: conn, flow: h}
	c.between.Store(true)
	return c
}

// Write implements net.Conn.
func (c *serverConn) Write(b []byte) (int, error) {
	if c.between.Load() {
		c.flow.deny(LayerHTTP, "malformed request: "+stdlibErrorText(b))
	}
	return c.Conn.Write(b)
}

// stdlibErrorText is what an answer of net/http's own says: its text, or its status.
func stdlibErrorText(answer []byte) string {
	header, text, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if len(text) > 0 {
		return string(text)
	}
	status, _, _ := strings.Cut(string(header), "\r\n")
	return strings.TrimPrefix(status, "HTTP/1.1 ")
}

// CloseWrite is flowConn's.
func (c *serverConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connState is an HTTP/1 server's hook.
func connState(c net.Conn, state http.ConnState) {
	conn, ok := c.(*serverConn)
	if !ok || state == http.StateNew || state == http.StateActive {
		return
	}
	conn.releaseHeader()
	if state == http.StateIdle {
		conn.between.Store(true)
	}
}

type connKey struct{}

// connContext puts a connection, and its flow, into its requests' context.
func connContext(ctx context.Context, c net.Conn) context.Context {
	switch conn := c.(type) {
	case *serverConn:
		return context.WithValue(context.WithValue(ctx, flowKey{}, conn.flow), connKey{}, conn)
	case *http2Conn:
		return context.WithValue(ctx, flowKey{}, conn.flow)
	default:
		return ctx
	}
}

// markHandled is called by handlers first of all.
func markHandled(ctx context.Context) {
	if conn, ok := ctx.Value(connKey{}).(*serverConn); ok {
		conn.between.Store(false)
		conn.names, conn.head = spellingOf(conn.head), nil
	}
}

type flowKey struct{}

func flowOf(ctx context.Context) *httpFlow {
	h, _ := ctx.Value(flowKey{}).(*httpFlow)
	return h
}
