// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/decision"
)

// leaveAfter is how long an origin has to answer a client that has ended its side before it is told so. Some
// take that for a client that has left.
const leaveAfter = 2 * time.Second

// halfClose keeps from an HTTP/1 server that its client has ended its side, while it answers the last request: it
// would take that for the end of the connection.
type halfClose struct {
	mu      sync.Mutex    // guards these
	expired chan struct{} // closed while the read deadline is over; nil where none was ever set
	header  bool          // there is a read deadline, as the server sets it for a header only
}

// setDeadline is told of the server's read deadlines.
func (h *halfClose) setDeadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.header = !t.IsZero()
	over := false
	if h.expired != nil {
		select {
		case <-h.expired:
			over = true
		default:
		}
	}
	switch now := !t.IsZero() && !t.After(time.Now()); {
	case h.expired == nil || over && !now:
		h.expired = make(chan struct{})
		if now {
			close(h.expired)
		}
	case now && !over:
		close(h.expired)
	}
}

// hasHeader reports whether the server has read the header of a request. It looks for the client to leave from then
// on, a moment before a handler runs.
func (h *halfClose) hasHeader() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.expired != nil && !h.header
}

// await waits until the server wants its reader back, as it does when it has answered, or the flow ends. It returns
// what the server's read returns. late is called where that takes long.
func (h *halfClose) await(f *httpFlow, late func()) error {
	h.mu.Lock()
	expired := h.expired
	h.mu.Unlock()
	defer time.AfterFunc(leaveAfter, late).Stop()
	select {
	case <-expired:
		return os.ErrDeadlineExceeded
	case <-f.ctx.Done():
		return io.EOF
	}
}

// leaveOrigins tells the origins that nothing more comes, if the request under way has no body: of one with a body
// it is not known whether all of it has been sent on.
func (h *httpFlow) leaveOrigins() {
	if h.exchanges.haveBodies() {
		return
	}
	for _, c := range h.conns.all() {
		if c != h.conns.client {
			_ = c.CloseWrite()
		}
	}
}

// SetReadDeadline implements net.Conn.
func (c *serverConn) SetReadDeadline(t time.Time) error {
	c.halfClose.setDeadline(t)
	return c.Conn.SetReadDeadline(t)
}

// endedSide reports whether the other end of a connection has ended its side, and no more.
func endedSide(c *net.TCPConn) bool { return tcpState(c) == unix.BPF_TCP_CLOSE_WAIT }

// awaitGreeting carries a connection whose client has ended its side without a word. Servers may speak all the same.
func (f *tcpFlow) awaitGreeting(client clientConn, up *net.TCPConn, admitted *decision.Connection) {
	if endedSide(client.TCPConn) {
		_ = up.CloseWrite()
		awaitReadable(up) // it ends with the flow
	}
	if !hasSpoken(up) {
		up.Close()
		f.finish()
		return
	}
	f.opaque(client, up, admitted)
}
