// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
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
	// firstRead is enough to tell protocols apart, and mostly for a whole
	// ClientHello.
	firstRead = 4096
)

// classify looks at a connection's first bytes. undecided is true where more
// bytes could change the answer.
func classify(b []byte) (s speech, undecided bool) {
	if len(b) == 0 {
		return silent, true
	}
	if b[0] != recordTypeHandshake {
		return classifyHTTP(b)
	}
	if len(b) < 2 {
		return speaksTLS, true
	}
	if b[1] == 3 {
		return speaksTLS, false
	}
	return opaque, false
}

// longestMethod is more than the longest method that is registered with IANA,
// UPDATEREDIRECTREF.
const longestMethod = 24

// classifyHTTP recognises a request line (RFC 9112 section 3), and the preface
// of HTTP/2, which was made to look like one. Any method will do, but what
// follows must look like a target: other protocols begin with words too.
func classifyHTTP(b []byte) (s speech, undecided bool) {
	n := 0
	for n < len(b) && (b[n] >= 'A' && b[n] <= 'Z' || b[n] == '-' || b[n] == '_') {
		n++
	}
	switch {
	case n > longestMethod:
		return opaque, false
	case n == len(b):
		return opaque, true
	case n == 0 || b[n] != ' ':
		return opaque, false
	}
	method, target := string(b[:n]), string(b[n+1:])
	switch {
	case target == "":
		return opaque, true
	case method == "CONNECT" || target[0] == '/' || target[0] == '*':
		return speaksHTTP, false
	}
	for _, scheme := range []string{"http://", "https://"} {
		have := min(len(target), len(scheme))
		if strings.EqualFold(target[:have], scheme[:have]) {
			if have == len(scheme) {
				return speaksHTTP, false
			}
			undecided = true
		}
	}
	return opaque, undecided
}

// speaksHTTP2 reports whether what is HTTP is the preface of HTTP/2 (RFC 9113
// section 3.4), which no HTTP/1 request can be: PRI is reserved.
func speaksHTTP2(b []byte) bool { return bytes.HasPrefix(b, []byte("PRI *")) }

// listen reads the client's first bytes until they can be told apart, and adds
// them to what was read before.
func listen(conn net.Conn, prefix []byte, wait time.Duration) (speech, []byte) {
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	for {
		s, undecided := classify(prefix)
		if !undecided {
			return s, prefix
		}
		chunk := make([]byte, firstRead)
		n, err := conn.Read(chunk)
		prefix = append(prefix, chunk[:n]...)
		if err != nil {
			s, _ := classify(prefix)
			return s, prefix
		}
		_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	}
}

// firstSpeaker waits until one end has something to say, without reading it.
// Protocols whose server greets first must not wait for the client. Of two that
// have spoken it is the client: nothing of what the server said has reached it.
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
	return clientFirst || hasSpoken(client)
}

// hasSpoken reports whether the connection has bytes to read.
func hasSpoken(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n, one := 0, [1]byte{}
	err = raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) })
	return err == nil && n > 0
}

// awaitReadable returns when the connection has bytes, or its end, to read.
func awaitReadable(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var one [1]byte
	_ = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// firstWords is firstSpeaker for connections that have to be read to know
// whether they say something, as those over TLS do. It returns what each end
// said, which is at most one's words unless both spoke at once.
func firstWords(client, upstream net.Conn) (said, greeting []byte) {
	type words struct {
		from net.Conn
		text []byte
	}
	heard := make(chan words, 2)
	read := func(c net.Conn) {
		buf := make([]byte, firstRead)
		n, _ := c.Read(buf)
		heard <- words{c, buf[:n]}
	}
	go read(client)
	go read(upstream)
	for i := range 2 {
		w := <-heard
		if w.from == client {
			said = w.text
		} else {
			greeting = w.text
		}
		if i == 0 {
			_ = client.SetReadDeadline(time.Unix(1, 0))
			_ = upstream.SetReadDeadline(time.Unix(1, 0))
		}
	}
	_ = client.SetReadDeadline(time.Time{})
	_ = upstream.SetReadDeadline(time.Time{})
	return said, greeting
}

// alive reports whether an unused connection's other end has not closed it
// (TCP_INFO, tcp(7)). Reading would tell as well, but takes bytes away.
func alive(c *net.TCPConn) bool { return tcpState(c) == unix.BPF_TCP_ESTABLISHED }

// tcpState is a connection's state, or 0 where it has none any more.
func tcpState(c *net.TCPConn) (state uint8) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state
}
