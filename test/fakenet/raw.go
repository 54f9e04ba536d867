// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// rawIdle ends a raw connection on which nothing happens.
const rawIdle = 2 * time.Minute

// MailBanner is what MailHost says before the client says anything.
const MailBanner = "220 mail.example ESMTP fakenet"

// startRaw starts the services over bare TCP.
func (n *Net) startRaw() error {
	if err := n.listen(EchoHost, 7, func(l net.Listener) { n.serveConns(l, EchoHost, "tcp", echoConn) }); err != nil {
		return err
	}
	for _, port := range []uint16{25, 2525} {
		if err := n.listen(MailHost, port, func(l net.Listener) { n.serveConns(l, MailHost, "tcp", mailConn) }); err != nil {
			return err
		}
	}
	return nil
}

// startTLS starts an echo over TLS, which speaks no HTTP.
func (n *Net) startTLS() error {
	cert, err := n.ca.issue(leaf{names: []string{TLSHost}, addrs: hosts[TLSHost], notAfter: n.ca.cert.NotAfter})
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"echo", "mqtt"}}
	return n.listen(TLSHost, 8883, func(l net.Listener) {
		n.serveConns(tls.NewListener(l, config), TLSHost, "tls", echoConn)
	})
}

// startUDP starts an echo over UDP, on QUIC's port too.
func (n *Net) startUDP() error {
	for _, addr := range hosts[EchoHost] {
		for _, port := range []uint16{7, 443} {
			conn, err := listenPacketIn(n.spaces.internet, netip.AddrPortFrom(addr, port))
			if err != nil {
				return fmt.Errorf("listen for %s: %w", EchoHost, err)
			}
			n.closeLater(conn)
			n.serving.Go(func() { n.echoPackets(conn) })
		}
	}
	return nil
}

func (n *Net) echoPackets(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		n.journal.requests.add(Request{
			Time: time.Now(), Origin: EchoHost, Proto: "udp", Body: int64(size),
			Local: conn.LocalAddr().String(), Remote: from.String(),
		})
		if _, err := conn.WriteTo(buf[:size], from); err != nil {
			n.log.Warn("answer a datagram", "remote", from, "error", err)
		}
	}
}

// serveConns accepts until the listener is closed.
func (n *Net) serveConns(l net.Listener, origin, proto string, serve func(net.Conn)) {
	n.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() { n.serveConn(conn, origin, proto, serve) })
		}
	})
}

func (n *Net) serveConn(conn net.Conn, origin, proto string, serve func(net.Conn)) {
	defer conn.Close()
	defer context.AfterFunc(n.ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(rawIdle))
	var sni string
	if secured, ok := conn.(*tls.Conn); ok {
		if err := secured.Handshake(); err != nil {
			n.log.Warn("TLS handshake", "origin", origin, "error", err)
			return
		}
		sni = secured.ConnectionState().ServerName
	}
	serve(n.opened(conn, origin, proto, sni))
}

func echoConn(conn net.Conn) {
	if _, err := io.Copy(conn, conn); err == nil {
		conn.(*countedConn).CloseWrite()
	}
}

// mailConn is as much of SMTP (RFC 5321) as shows who speaks first.
func mailConn(conn net.Conn) {
	fmt.Fprintf(conn, "%s\r\n", MailBanner)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		verb, _, _ := strings.Cut(strings.ToUpper(lines.Text()), " ")
		switch verb {
		case "QUIT":
			fmt.Fprint(conn, "221 bye\r\n")
			return
		case "EHLO", "HELO", "MAIL", "RCPT", "RSET", "NOOP":
			fmt.Fprint(conn, "250 ok\r\n")
		default:
			fmt.Fprint(conn, "502 command not implemented\r\n")
		}
	}
}
