package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// handover is a listener whose connections are given to it: it lets net/http
// serve connections that the proxy has already looked into.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// flowConn is a client's connection: it begins with bytes that were read
// before, and its end is its flow's end.
type flowConn struct {
	net.Conn
	flow   *flow
	prefix []byte
}

// Read implements net.Conn.
func (c *flowConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		c.prefix = c.prefix[n:]
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

type flowKey struct{}

// connContext puts a connection's flow into its requests' context.
func connContext(ctx context.Context, c net.Conn) context.Context {
	for {
		switch conn := c.(type) {
		case *flowConn:
			return context.WithValue(ctx, flowKey{}, conn.flow)
		case *tls.Conn:
			c = conn.NetConn()
		default:
			return ctx
		}
	}
}

func flowOf(ctx context.Context) *flow {
	f, _ := ctx.Value(flowKey{}).(*flow)
	return f
}
