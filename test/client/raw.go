// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// quiet is how long the other side must be silent, after its first bytes, for
// its reply to count as whole.
const quiet = time.Second

// sendTCP sends text, if there is any, and prints the reply.
func sendTCP(args []string) (result, error) {
	o := newOptions()
	escapes := o.Bool("e", false, "")
	shut := o.Bool("shut", false, "")
	if err := o.parse(args, 1, 2); err != nil {
		return result{}, err
	}
	text, err := unescape(o.Arg(1), *escapes)
	if err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	conn, err := net.DialTimeout("tcp", o.Arg(0), o.timeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	r.setAddrs(conn)
	if text == "" {
		return r, nil
	}
	conn.SetDeadline(time.Now().Add(o.timeout))
	if _, err := conn.Write([]byte(text)); err != nil {
		return r, err
	}
	if *shut {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return r, err
		}
	}
	return r, r.readReply(conn, o.timeout)
}

// banner prints what a server says that speaks first.
func banner(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	conn, err := net.DialTimeout("tcp", o.Arg(0), o.timeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	r.setAddrs(conn)
	return r, r.readReply(conn, o.timeout)
}

// sendTLS is sendTCP inside TLS, for protocols that are not HTTP. With no text it
// only shakes hands.
func sendTLS(args []string) (result, error) {
	o := newOptions()
	sni := o.String("sni", "", "")
	alpn := o.String("alpn", "", "")
	ca := o.String("ca", "", "")
	fragment := o.Int("fragment", 0, "")
	escapes := o.Bool("e", false, "")
	if err := o.parse(args, 1, 2); err != nil {
		return result{}, err
	}
	text, err := unescape(o.Arg(1), *escapes)
	if err != nil {
		return result{}, err
	}
	config, err := tlsConfig(*ca)
	if err != nil {
		return result{}, err
	}
	if config.ServerName = *sni; *sni == "" {
		if config.ServerName, _, err = net.SplitHostPort(o.Arg(0)); err != nil {
			return result{}, usageError{err.Error()}
		}
	}
	if *alpn != "" {
		config.NextProtos = strings.Split(*alpn, ",")
	}
	r := result{Target: o.Arg(0)}
	conn, err := net.DialTimeout("tcp", o.Arg(0), o.timeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	r.setAddrs(conn)
	conn.SetDeadline(time.Now().Add(o.timeout))
	if *fragment > 0 {
		conn = fragmented{Conn: conn, size: *fragment}
	}
	secured := tls.Client(conn, config)
	if err := secured.Handshake(); err != nil {
		return r, fmt.Errorf("TLS handshake: %w", err)
	}
	r.setTLS(secured.ConnectionState())
	if text == "" {
		return r, nil
	}
	if _, err := secured.Write([]byte(text)); err != nil {
		return r, err
	}
	return r, r.readReply(secured, o.timeout)
}

// fragmented sends each write in pieces, each in a segment of its own, as a
// ClientHello arrives that was cut up.
type fragmented struct {
	net.Conn
	size int
}

func (f fragmented) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := f.Conn.Write(p[sent:min(sent+f.size, len(p))])
		sent += n
		if err != nil {
			return sent, err
		}
		time.Sleep(time.Millisecond)
	}
	return sent, nil
}

// sendUDP sends one datagram and prints the one that comes back.
func sendUDP(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 2, 2); err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	conn, err := net.DialTimeout("udp", o.Arg(0), o.timeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	r.setAddrs(conn)
	conn.SetDeadline(time.Now().Add(o.timeout))
	if _, err := conn.Write([]byte(o.Arg(1))); err != nil {
		return r, err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	r.Body, r.Bytes = string(buf[:n]), int64(n)
	return r, err
}

func (r *result) setAddrs(conn net.Conn) {
	r.Local, r.Remote = conn.LocalAddr().String(), conn.RemoteAddr().String()
}

// readReply reads until the other side closes or falls silent. No byte at all is
// an error.
func (r *result) readReply(conn net.Conn, timeout time.Duration) error {
	var reply []byte
	buf := make([]byte, 32<<10)
	conn.SetReadDeadline(time.Now().Add(timeout))
	for len(reply) < bodyLimit {
		n, err := conn.Read(buf)
		reply = append(reply, buf[:n]...)
		if err != nil {
			r.Body, r.Bytes = string(reply), int64(len(reply))
			if len(reply) > 0 && endOfReply(err) {
				return nil
			}
			return err
		}
		conn.SetReadDeadline(time.Now().Add(quiet))
	}
	r.Body, r.Bytes = string(reply), int64(len(reply))
	return nil
}

func endOfReply(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)
}

// unescape reads \r, \n, \x00 and the like as in a Go string.
func unescape(text string, wanted bool) (string, error) {
	if !wanted {
		return text, nil
	}
	out, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		return "", usageError{fmt.Sprintf("bad escape in %q", text)}
	}
	return out, nil
}
