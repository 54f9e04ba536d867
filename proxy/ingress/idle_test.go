// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	a = conn.(*net.TCPConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = a.SetDeadline(time.Now().Add(time.Minute))
	return a, b
}

// A pair of connections on which one end speaks lives on, and ends when it stops.
func TestSilentPairEnds(t *testing.T) {
	for idle := 2 * time.Second; !speaksOn(t, idle); idle *= 2 {
		t.Logf("this machine cannot speak twice in %s", idle)
	}
}

// speaksOn reports whether it was fast enough to speak all the time.
func speaksOn(t *testing.T, idle time.Duration) bool {
	t.Helper()
	client, outside := tcpPair(t)
	server, inside := tcpPair(t)
	go func() { _, _ = io.Copy(io.Discard, inside) }()
	defer endIdle(idle, outside, inside)()
	for last, begun := time.Now(), time.Now(); time.Since(begun) < 2*idle; time.Sleep(idle / 10) {
		_, err := server.Write([]byte("x"))
		if silent := time.Since(last); silent > idle/2 {
			return false
		} else if err != nil {
			t.Fatal("it ends while one speaks:", err)
		}
		last = time.Now()
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ends with %v", err)
	}
	return true
}
