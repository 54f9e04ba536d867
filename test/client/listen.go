// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// listen serves until COUNT connections (or datagrams) have ended, or TIMEOUT is
// over where one is given: an echo, or with -http an answer that says so. The
// first line tells that it is ready, then one line comes for each connection.
func listen(args []string) (result, error) {
	o := newOptions()
	asHTTP := o.Bool("http", false, "")
	udp := o.Bool("udp", false, "")
	count := o.Int("n", 0, "")
	o.timeout = 0
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	var deadline time.Time
	if o.timeout > 0 {
		deadline = time.Now().Add(o.timeout)
	}
	if *udp {
		return listenUDP(o.Arg(0), *count, deadline)
	}
	l, err := net.Listen("tcp", o.Arg(0))
	if err != nil {
		return result{}, err
	}
	defer l.Close()
	ready(l.Addr())
	l.(*net.TCPListener).SetDeadline(deadline)
	serve := echo
	if *asHTTP {
		serve = answerHTTP
	}
	var open sync.WaitGroup
	for served := 0; *count == 0 || served < *count; served++ {
		conn, err := l.Accept()
		if err != nil {
			open.Wait()
			return result{Local: l.Addr().String()}, notDeadline(err)
		}
		conn.SetDeadline(deadline)
		open.Go(func() {
			start := time.Now()
			r := result{Command: "accepted"}
			r.setAddrs(conn)
			var err error
			r.Body, err = serve(conn)
			r.Bytes = int64(len(r.Body))
			conn.Close()
			emit(r, err, start)
		})
	}
	open.Wait()
	return result{Local: l.Addr().String()}, nil
}

func listenUDP(address string, count int, deadline time.Time) (result, error) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	ready(conn.LocalAddr())
	conn.SetReadDeadline(deadline)
	buf := make([]byte, 64<<10)
	for served := 0; count == 0 || served < count; served++ {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return result{Local: conn.LocalAddr().String()}, notDeadline(err)
		}
		start := time.Now()
		_, err = conn.WriteTo(buf[:n], from)
		emit(result{Command: "received", Remote: from.String(), Body: string(buf[:n]), Bytes: int64(n)}, err, start)
	}
	return result{Local: conn.LocalAddr().String()}, nil
}

func ready(addr net.Addr) {
	emit(result{Command: "listening", Local: addr.String()}, nil, time.Now())
}

// notDeadline makes the wanted end of a listener no failure.
func notDeadline(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// echo sends back what comes and returns the start of it.
func echo(conn net.Conn) (string, error) {
	var kept limitedText
	_, err := io.Copy(conn, io.TeeReader(conn, &kept))
	return string(kept), err
}

// answerHTTP answers one connection's requests by net/http and returns the last
// one's method and target.
func answerHTTP(conn net.Conn) (string, error) {
	seen := ""
	done := make(chan struct{})
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = r.Method + " " + r.RequestURI
			w.Header().Set("Connection", "close")
			io.WriteString(w, "hello from the container\n")
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				close(done)
			}
		},
	}
	go server.Serve(&oneConn{conn: conn, done: done})
	<-done
	return seen, nil
}

// oneConn is a listener with a single connection to accept.
type oneConn struct {
	conn net.Conn
	done chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

type limitedText []byte

func (t *limitedText) Write(p []byte) (int, error) {
	*t = append(*t, p[:min(len(p), bodyLimit-len(*t))]...)
	return len(p), nil
}
