package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// speech is what a connection's first bytes look like.
type speech int

const (
	silent speech = iota // nobody said anything
	opaque               // neither of the next two
	speaksTLS
	speaksHTTP
)

const (
	// explainWait is how long a refused client is given to say in which
	// protocol it wants to hear why.
	explainWait = time.Second
	// helloWait bounds the rest of a first message that has begun.
	helloWait = 10 * time.Second
	// maxHello is the longest ClientHello taken; post-quantum key shares and
	// long session tickets make ones of several records.
	maxHello = 64 << 10
)

// recordTypeHandshake is the first byte of TLS (RFC 8446 section 5.1).
const recordTypeHandshake = 22

var httpMethods = [][]byte{
	[]byte(http.MethodGet), []byte(http.MethodHead), []byte(http.MethodPost), []byte(http.MethodPut),
	[]byte(http.MethodDelete), []byte(http.MethodPatch), []byte(http.MethodOptions), []byte(http.MethodTrace),
	[]byte(http.MethodConnect), []byte("PROPFIND"), []byte("MKCOL"), []byte("REPORT"), []byte("SEARCH"), []byte("QUERY"),
}

// classify looks at a connection's first bytes. undecided is true where more
// bytes could change the answer.
func classify(b []byte) (s speech, undecided bool) {
	if len(b) == 0 {
		return silent, true
	}
	if b[0] == recordTypeHandshake {
		if len(b) < 3 {
			return speaksTLS, true
		}
		if b[1] == 3 && b[2] <= 4 {
			return speaksTLS, false
		}
		return opaque, false
	}
	for _, m := range httpMethods {
		line := append(m[:len(m):len(m)], ' ')
		if bytes.HasPrefix(b, line) {
			return speaksHTTP, false
		}
		if bytes.HasPrefix(line, b) {
			undecided = true
		}
	}
	return opaque, undecided
}

// listen reads the client's first bytes until they can be told apart, and adds
// them to what was read before.
func listen(conn net.Conn, prefix []byte, wait time.Duration) (speech, []byte) {
	buf := prefix
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	for {
		s, undecided := classify(buf)
		if !undecided {
			return s, buf
		}
		chunk := make([]byte, 4096)
		n, err := conn.Read(chunk)
		buf = append(buf, chunk[:n]...)
		if err != nil {
			s, _ := classify(buf)
			return s, buf
		}
		_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	}
}

// firstSpeaker waits until one end has something to say, without reading it.
// Protocols whose server greets first must not wait for the client.
func firstSpeaker(ctx context.Context, client, upstream *net.TCPConn) (clientFirst bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan bool, 2)
	wait := func(c *net.TCPConn, isClient bool) {
		interrupted := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			_ = c.SetReadDeadline(time.Unix(1, 0))
			close(interrupted)
		})
		awaitReadable(c)
		if !stop() {
			<-interrupted // its deadline must not come after the one below
		}
		heard <- isClient
	}
	go wait(client, true)
	go wait(upstream, false)
	clientFirst = <-heard
	cancel()
	<-heard
	_ = client.SetReadDeadline(time.Time{})
	_ = upstream.SetReadDeadline(time.Time{})
	return clientFirst
}

// awaitReadable returns when the connection has bytes, or its end, to read.
func awaitReadable(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// errHelloSeen ends the handshake that only serves to parse a ClientHello.
var errHelloSeen = errors.New("seen")

// readHello reads a whole ClientHello, however many records carry it, and
// returns its server name and what was read.
func readHello(conn net.Conn, prefix []byte) (serverName string, read []byte, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	rec := &recorder{conn: conn, r: io.MultiReader(bytes.NewReader(prefix), conn)}
	err = tls.Server(rec, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			serverName = hello.ServerName
			return nil, errHelloSeen
		},
	}).Handshake()
	// What crypto/tls did not ask for is still unread behind the record.
	if n := len(rec.read); n < len(prefix) {
		rec.read = append(rec.read, prefix[n:]...)
	}
	if errors.Is(err, errHelloSeen) {
		err = nil
	}
	return serverName, rec.read, err
}

// recorder keeps what is read through it and writes nothing.
type recorder struct {
	conn net.Conn
	r    io.Reader
	read []byte
}

var errHelloTooLong = errors.New("ClientHello is too long")

func (c *recorder) Read(b []byte) (int, error) {
	if len(c.read) > maxHello {
		return 0, errHelloTooLong
	}
	n, err := c.r.Read(b)
	c.read = append(c.read, b[:n]...)
	return n, err
}

func (c *recorder) Write(b []byte) (int, error)        { return len(b), nil }
func (c *recorder) Close() error                       { return nil }
func (c *recorder) LocalAddr() net.Addr                { return c.conn.LocalAddr() }
func (c *recorder) RemoteAddr() net.Addr               { return c.conn.RemoteAddr() }
func (c *recorder) SetDeadline(t time.Time) error      { return nil }
func (c *recorder) SetReadDeadline(t time.Time) error  { return nil }
func (c *recorder) SetWriteDeadline(t time.Time) error { return nil }
