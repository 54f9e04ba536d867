// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAssociationsAreToldApart(t *testing.T) {
	var s Associations[*Association]
	begin := func(limit int, e Ends) func(int) (*Association, bool) {
		return func(open int) (*Association, bool) { return NewAssociation(e), open < limit }
	}
	here, there := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	to, back := Ends{here, there}, Ends{there, here}
	a, ok := s.Get(to, begin(1, to))
	if again, _ := s.Get(to, begin(1, to)); !ok || again != a {
		t.Errorf("the same ends have %p and %p, %v", a, again, ok)
	}
	if _, ok := s.Get(back, begin(1, back)); ok {
		t.Error("one more than may be open")
	}
	if _, ok := s.Find(back); ok {
		t.Error("one that may not be open is")
	}
	s.End(to)
	if _, ok := s.Find(to); ok {
		t.Error("one is open after its end")
	}
	if b, ok := s.Get(back, begin(1, back)); !ok || b.Source != there {
		t.Errorf("%+v, %v", b, ok)
	}
}

// pair returns two UDP sockets that are connected to each other.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	var sockets [2]*net.UDPConn
	var conns [2]net.Conn
	for i := range sockets {
		var err error
		sockets[i], err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		must(t, err)
	}
	for i, s := range sockets { // both have their ports: nobody else can take one
		f, err := s.File()
		must(t, err)
		must(t, unix.Connect(int(f.Fd()), sockaddr(sockets[1-i].LocalAddr().(*net.UDPAddr).AddrPort())))
		conns[i], err = net.FileConn(f)
		must(t, err)
		f.Close()
	}
	for i, c := range conns {
		sockets[i].Close()
		t.Cleanup(func() { c.Close() })
		must(t, c.SetDeadline(time.Now().Add(patience)))
	}
	return conns[0], conns[1]
}

// Every datagram arrives, those that came before the sockets and those without
// content too.
func TestAssociationRelays(t *testing.T) {
	client, near := pair(t)
	far, server := pair(t)
	a := NewAssociation(Ends{})
	a.Add([]byte("one"))
	a.Add(nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.Relay(ctx, near, far); close(ended) }()
	buf := make([]byte, 64)
	receive := func(c net.Conn, want string) {
		t.Helper()
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
		}
	}
	receive(server, "one")
	receive(server, "")
	client.Write([]byte("two"))
	receive(server, "two")
	server.Write(nil)
	receive(client, "")
	server.Write([]byte("three"))
	receive(client, "three")
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the relay goes on")
	}
	if a.Refused.Load() {
		t.Error("refused by nobody")
	}
}

func TestAssociationTellsARefusal(t *testing.T) {
	client, near := pair(t)
	far, server := pair(t)
	server.Close()
	a := NewAssociation(Ends{})
	ended := make(chan struct{})
	go func() { a.Relay(t.Context(), near, far); close(ended) }()
	client.Write([]byte("anybody?"))
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the relay goes on")
	}
	if !a.Refused.Load() {
		t.Error("not refused")
	}
}

// What waits for sockets is bounded, and the oldest stays.
func TestAssociationHoldsFew(t *testing.T) {
	a := NewAssociation(Ends{})
	payload := []byte{0}
	for i := range byte(3 * maxPending) {
		payload[0] = i
		a.Add(payload)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for i := range byte(maxPending) {
		if b := a.Next(ctx); len(b) != 1 || b[0] != i {
			t.Fatalf("datagram %d is %v", i, b)
		}
	}
	cancel()
	if b := a.Next(ctx); b != nil {
		t.Errorf("one more: %v", b)
	}
}

func TestAssociationEndsWhereBothAreSilent(t *testing.T) {
	_, near := pair(t)
	far, _ := pair(t)
	a := NewAssociation(Ends{})
	a.Silence = 50 * time.Millisecond
	ended := make(chan struct{})
	go func() { a.Relay(t.Context(), near, far); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the relay goes on")
	}
}
