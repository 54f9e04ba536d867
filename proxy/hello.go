// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// TLS as its first bytes show it (RFC 8446 sections 4 and 5.1).
const (
	recordTypeCCS       = 20 // the lowest of the record types; the others follow
	recordTypeAlert     = 21
	recordTypeHandshake = 22
	recordTypeHeartbeat = 24 // the highest
	recordHeader        = 5
	handshakeHeader     = 4
	typeClientHello     = 1
	extServerName       = 0 // RFC 6066 section 3
	typeHostName        = 0
	// maxRecord is the longest record that some version allows, and more than any
	// server takes of one that is not encrypted.
	maxRecord = 1<<14 + 2048
)

// maxHello is the longest ClientHello taken; post-quantum key shares and long
// session tickets make ones of several records.
const maxHello = 64 << 10

// beginsTLS reports whether a server may take a connection's first bytes for TLS.
// undecided is true where more bytes could change the answer. Servers are lenient:
// some go on after an alert, some take any version below 0x1000, and some the
// ClientHello of SSL 2 (RFC 5246 appendix E.2).
func beginsTLS(b []byte) (yes, undecided bool) {
	switch {
	case len(b) == 0:
		return false, true
	case b[0]&0x80 != 0:
		return beginsSSL2(b)
	case b[0] < recordTypeCCS || b[0] > recordTypeHeartbeat:
		return false, false
	case len(b) < 2:
		return false, true
	case b[1] == 3:
		return true, false
	case b[1] >= 0x10 || b[0] != recordTypeHandshake && b[0] != recordTypeAlert:
		return false, false
	// No version that there is: other protocols begin so too, with the length of a
	// message. What follows tells.
	case len(b) < recordHeader+1:
		return false, true
	}
	length := int(binary.BigEndian.Uint16(b[3:]))
	if b[0] == recordTypeAlert {
		return length == 2 && (b[5] == 1 || b[5] == 2), false
	}
	return length > 0 && length <= maxRecord && b[5] == typeClientHello, false
}

func beginsSSL2(b []byte) (yes, undecided bool) {
	if b[0]&0x7f > maxRecord>>8 || len(b) > 2 && b[2] != typeClientHello || len(b) > 3 && b[3] != 3 && b[3] != 0 {
		return false, false
	}
	if len(b) < recordHeader {
		return false, true
	}
	return b[3] == 3 || b[4] == 2, false
}

// readHello reads a whole ClientHello, however many records carry it, and returns
// its server name and what was read, prefix included. Nothing else may be there:
// servers differ in what they pass over.
func readHello(conn net.Conn, prefix []byte) (serverName string, read []byte, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	read = prefix
	need := func(n int) error {
		for len(read) < n {
			chunk := make([]byte, max(firstRead, n-len(read)))
			got, err := conn.Read(chunk)
			if read = append(read, chunk[:got]...); len(read) < n && err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		return nil
	}
	var message []byte
	for at := 0; ; {
		if err := need(at + recordHeader); err != nil {
			return "", read, err
		}
		header := read[at : at+recordHeader]
		length := int(binary.BigEndian.Uint16(header[3:]))
		switch {
		case header[0] != recordTypeHandshake:
			return "", read, fmt.Errorf("a record of type %d before its end", header[0])
		case header[1] != 3:
			return "", read, fmt.Errorf("a record of version %#x%02x", header[1], header[2])
		case length == 0 || length > maxRecord:
			return "", read, fmt.Errorf("a record of %d bytes", length)
		case at+length > maxHello:
			return "", read, errors.New("it is too long")
		}
		if err := need(at + recordHeader + length); err != nil {
			return "", read, err
		}
		at += recordHeader
		message = append(message, read[at:at+length]...)
		at += length
		if message[0] != typeClientHello {
			return "", read, fmt.Errorf("a handshake message of type %d", message[0])
		}
		if len(message) < handshakeHeader {
			continue
		}
		size := handshakeHeader + int(binary.BigEndian.Uint32(message)&0xffffff)
		switch {
		case size > maxHello:
			return "", read, errors.New("it is too long")
		case len(message) > size:
			return "", read, errors.New("more behind it in its record")
		case len(message) == size:
			serverName, err = serverNameOf(message[handshakeHeader:])
			return serverName, read, err
		}
	}
}

var errHelloFields = errors.New("its fields are not well-formed")

// fields takes vectors off the front of a message (RFC 8446 section 3.4).
type fields []byte

// take returns n bytes. It is false where there are fewer.
func (f *fields) take(n int) (b fields, ok bool) {
	if len(*f) < n {
		return nil, false
	}
	b, *f = (*f)[:n], (*f)[n:]
	return b, true
}

// vector returns what stands behind a length of that many bytes.
func (f *fields) vector(size int) (b fields, ok bool) {
	head, ok := f.take(size)
	if !ok {
		return nil, false
	}
	n := 0
	for _, b := range head {
		n = n<<8 | int(b)
	}
	return f.take(n)
}

// serverNameOf returns the server name that a ClientHello asks for, or "" where it
// names none. It must have the extension once and one name in it: servers differ
// in which of several they take.
func serverNameOf(hello fields) (string, error) {
	_, version := hello.take(2 + 32) // and the random bytes
	_, session := hello.vector(1)
	_, suites := hello.vector(2)
	_, compression := hello.vector(1)
	if !version || !session || !suites || !compression {
		return "", errHelloFields
	}
	if len(hello) == 0 {
		return "", nil // SSL 3 had no extensions
	}
	extensions, ok := hello.vector(2)
	if !ok || len(hello) > 0 {
		return "", errHelloFields
	}
	name, seen := "", false
	for len(extensions) > 0 {
		kind, ok := extensions.take(2)
		body, whole := extensions.vector(2)
		if !ok || !whole {
			return "", errHelloFields
		}
		if binary.BigEndian.Uint16(kind) != extServerName {
			continue
		}
		list, ok := body.vector(2)
		form, typed := list.take(1)
		text, named := list.vector(2)
		if seen || !ok || !typed || !named || len(body) > 0 || len(list) > 0 || form[0] != typeHostName || len(text) == 0 {
			return "", errors.New("it must have one server name")
		}
		name, seen = string(text), true
	}
	return name, nil
}

// checkHello waits for the client's first bytes and, where a server may take them
// for TLS, for a whole ClientHello, and checks whom it asks for: behind many
// addresses there are many servers. It returns what it read.
func (f *tcpFlow) checkHello(client net.Conn, prefix []byte) ([]byte, error) {
	read, isTLS, err := hearTLS(client, prefix)
	if err != nil || !isTLS {
		f.tls.Store(TLSNone)
		return read, err
	}
	name, read, err := readHello(client, read)
	switch {
	case err != nil:
		return nil, fmt.Errorf("malformed ClientHello: %w", err)
	case !f.asksForHost(name):
		return nil, f.wrongName(name)
	}
	f.tls.Store(TLSSpliced)
	return read, nil
}

// hearTLS reads until it is known whether a client begins TLS. One that ends, or
// has not begun, does not.
func hearTLS(client net.Conn, read []byte) (_ []byte, isTLS bool, err error) {
	defer func() { _ = client.SetReadDeadline(time.Time{}) }()
	for {
		isTLS, undecided := beginsTLS(read)
		if !undecided {
			return read, isTLS, nil
		}
		if len(read) > 0 { // else it may think for as long as it likes
			_ = client.SetReadDeadline(time.Now().Add(helloWait))
		}
		chunk := make([]byte, firstRead)
		n, err := client.Read(chunk)
		read = append(read, chunk[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return read, false, errors.New("what may be a ClientHello is not ended")
		default:
			isTLS, _ = beginsTLS(read)
			return read, isTLS, nil // the end of the stream is the relay's
		}
	}
}

func (f *tcpFlow) wrongName(name string) error {
	return fmt.Errorf("server name %q on a connection to %s", name, f.endpoint().hostPort())
}

// asksForHost reports whether a ClientHello's server name is the connection's. No
// name is the address's own server. What is no host name (RFC 6066 section 3: no
// dot at the end) is another name to some server.
func (f *tcpFlow) asksForHost(name string) bool {
	return name == "" || isHost(name) && f.namesHost(name)
}

// namesHost reports whether a server name or request authority is the host that
// the connection was opened for, or the shorter name that a search domain made it
// of (resolv.conf(5)). A connection to an address was granted by
// address, and whoever is there may go by any name, but for those that permissive
// mode does not open: an address is no way around these.
func (f *tcpFlow) namesHost(name string) bool {
	to := f.endpoint()
	if name == "" || strings.EqualFold(name, to.host) || f.p.shortens(to.host, name) {
		return true
	}
	return to.isAddress() && f.decideNow().OpensName(name)
}

// shortens reports whether a search domain makes a host of a name.
func (p *Proxy) shortens(host, name string) bool {
	return slices.ContainsFunc(p.Search, func(domain string) bool { return strings.EqualFold(name+"."+domain, host) })
}
