package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// maxHello is the longest ClientHello taken; post-quantum key shares and long
// session tickets make ones of several records.
const maxHello = 64 << 10

// errHelloSeen ends the handshake that only serves to parse a ClientHello.
var errHelloSeen = errors.New("seen")

// readHello reads a whole ClientHello, however many records carry it, and
// returns its server name and what was read, prefix included.
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

func (c *recorder) Write(b []byte) (int, error)      { return len(b), nil }
func (c *recorder) Close() error                     { return nil }
func (c *recorder) LocalAddr() net.Addr              { return c.conn.LocalAddr() }
func (c *recorder) RemoteAddr() net.Addr             { return c.conn.RemoteAddr() }
func (c *recorder) SetDeadline(time.Time) error      { return nil }
func (c *recorder) SetReadDeadline(time.Time) error  { return nil }
func (c *recorder) SetWriteDeadline(time.Time) error { return nil }

// checkHello waits for the client's first bytes and, where they begin a
// ClientHello, for the whole of it, and checks whom it asks for: behind many
// addresses there are many servers. It returns what it read.
func (f *flow) checkHello(client net.Conn, prefix []byte) ([]byte, error) {
	if len(prefix) == 0 {
		prefix = make([]byte, firstRead)
		n, _ := client.Read(prefix) // The end of the stream is the relay's.
		prefix = prefix[:n]
	}
	if len(prefix) == 0 || prefix[0] != recordTypeHandshake {
		f.setTLS(TLSNone)
		return prefix, nil
	}
	name, read, err := readHello(client, prefix)
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &notTLS):
		f.setTLS(TLSNone)
	case err != nil:
		return nil, fmt.Errorf("malformed ClientHello: %w", err)
	case !f.namesHost(name):
		return nil, f.wrongName(name)
	default:
		f.setTLS(TLSSpliced)
	}
	return read, nil
}

func (f *flow) wrongName(name string) error {
	return fmt.Errorf("server name %q on a connection to %s", name, f.hostPort())
}

// namesHost tells whether a server name or request authority is the host that
// the connection was opened for. A connection to an address was granted by
// address, and whoever is there may go by any name, but for those that permissive
// mode does not open: an address is no way around these.
func (f *flow) namesHost(name string) bool {
	if name == "" || strings.EqualFold(strings.TrimSuffix(name, "."), f.host) {
		return true
	}
	if _, err := netip.ParseAddr(f.host); err != nil {
		return false
	}
	view := f.p.View()
	return f.grant(view).match.Allowed || !view.Permissive || !view.Never.Contain(name, f.port)
}
