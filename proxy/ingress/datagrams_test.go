// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"openshell.ai/openshell/netns"
)

// echo makes a UDP server inside that says its name, and what it heard from whom.
func echo(t *testing.T, inner *netns.Namespace, addr string) *net.UDPConn {
	t.Helper()
	u, err := inner.ListenPacket(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, client, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(append([]byte(addr+" heard "+client.Addr().Unmap().String()+" say "), buf[:n]...), client)
		}
	}()
	return u
}

// ask sends a datagram and returns the answer. A connected socket gets it only
// if it is from where the question went.
func ask(t *testing.T, c net.Conn, say string) (string, error) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte(say)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func dialUDP(t *testing.T, n *netns.Namespace, to string) net.Conn {
	t.Helper()
	c, err := n.Dial(t.Context(), "udp", netip.MustParseAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestInboundDatagramsReachTheWorkload(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7"), netip.MustParseAddr("fd00:88::7")}
	outer, peer, inner := plumbed(t, own...)
	r, err := started(t, outer, inner, own, 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.88.0.7:5000", "[fd00:88::7]:5000", "10.88.0.7:53", "127.0.0.1:6000", "0.0.0.0:7000"} {
		echo(t, inner, addr)
	}
	for _, tt := range []struct{ name, to, want string }{
		{"IPv4", "10.88.0.7:5000", "10.88.0.7:5000 heard 10.88.0.8 say "},
		{"IPv6", "[fd00:88::7]:5000", "[fd00:88::7]:5000 heard fd00:88::8 say "},
		{"a name server, not the sandbox's", "10.88.0.7:53", "10.88.0.7:53 heard 10.88.0.8 say "},
		{"a server on loopback only", "10.88.0.7:6000", "127.0.0.1:6000 heard 127.0.0.1 say "},
		{"a server on any address", "10.88.0.7:7000", "0.0.0.0:7000 heard 10.88.0.8 say "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialUDP(t, peer, tt.to)
			for _, say := range []string{"one", "two", "three"} {
				if got, err := ask(t, c, say); err != nil || got != tt.want+say {
					t.Fatalf("answer %q, %v; want %q", got, err, tt.want+say)
				}
			}
		})
	}
	t.Run("clients are told apart", func(t *testing.T) {
		one, two := dialUDP(t, peer, "10.88.0.7:5000"), dialUDP(t, peer, "10.88.0.7:5000")
		for _, say := range []string{"a", "b"} {
			for i, c := range []net.Conn{one, two} {
				say := say + string(rune('0'+i))
				if got, err := ask(t, c, say); err != nil || got != "10.88.0.7:5000 heard 10.88.0.8 say "+say {
					t.Errorf("client %d: %q, %v", i, got, err)
				}
			}
		}
	})
	t.Run("a port nobody has", func(t *testing.T) {
		if got, err := ask(t, dialUDP(t, peer, "10.88.0.7:1"), "hi"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%q, %v", got, err)
		}
	})
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, dialUDP(t, peer, "10.88.0.7:5000"), "hi"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the rules are still there: %q, %v", got, err)
	}
}

// Answers to what the outer namespace asked are not the workload's.
func TestAnswersToTheOuterNamespaceStayThere(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7")}
	outer, peer, inner := plumbed(t, own...)
	if _, err := started(t, outer, inner, own, 16); err != nil {
		t.Fatal(err)
	}
	echo(t, peer, "10.88.0.8:5000")
	unconnected, err := outer.ListenPacket(netip.MustParseAddrPort("10.88.0.7:4000"))
	if err != nil {
		t.Fatal(err)
	}
	defer unconnected.Close()
	echo(t, inner, "10.88.0.7:4000") // it would answer the answer

	if got, err := ask(t, dialUDP(t, outer, "10.88.0.8:5000"), "hi"); err != nil || got != "10.88.0.8:5000 heard 10.88.0.7 say hi" {
		t.Errorf("a connected socket: %q, %v", got, err)
	}
	unconnected.SetDeadline(time.Now().Add(time.Minute))
	if _, err := unconnected.WriteToUDPAddrPort([]byte("hi"), netip.MustParseAddrPort("10.88.0.8:5000")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256)
	n, _, err := unconnected.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "10.88.0.8:5000 heard 10.88.0.7 say hi" {
		t.Errorf("an unconnected socket: %q, %v", buf[:n], err)
	}
}

// What a workload sends to others than those who asked it is not let out.
func TestTheWorkloadAnswersOnlyWhoAsked(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7")}
	outer, peer, inner := plumbed(t, own...)
	if _, err := started(t, outer, inner, own, 16); err != nil {
		t.Fatal(err)
	}
	server := echo(t, inner, "10.88.0.7:5000")
	listen := func(addr string) *net.UDPConn {
		u, err := peer.ListenPacket(netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	asking, silent := listen("10.88.0.8:1000"), listen("10.88.0.8:1001")
	buf := make([]byte, 256)
	asking.SetDeadline(time.Now().Add(time.Minute))
	if _, err := asking.WriteToUDPAddrPort([]byte("hi"), netip.MustParseAddrPort("10.88.0.7:5000")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := asking.ReadFromUDPAddrPort(buf); err != nil {
		t.Fatal(err)
	}
	// The first has come to its end when the second arrives, which then sends another.
	for _, to := range []*net.UDPConn{silent, asking} {
		server.WriteToUDPAddrPort([]byte("more"), to.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	if n, _, err := asking.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "more" {
		t.Errorf("who asked got %q, %v", buf[:n], err)
	}
	up(t, peer, "lo", "")
	asking.WriteToUDPAddrPort([]byte("marker"), silent.LocalAddr().(*net.UDPAddr).AddrPort())
	silent.SetDeadline(time.Now().Add(time.Minute))
	if n, _, err := silent.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "marker" {
		t.Errorf("who did not ask got %q, %v", buf[:n], err)
	}
}

// A program that listens on any address answers from the first of its own. The
// client gets the answer from the one that it has asked.
func TestAnswersComeFromTheAddressThatWasAsked(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7"), netip.MustParseAddr("10.99.0.7"),
		netip.MustParseAddr("fd01::7"), netip.MustParseAddr("fd02::7")}
	outer, peer, inner := plumbed(t, own...)
	r, err := started(t, outer, inner, own, 16)
	if err != nil {
		t.Fatal(err)
	}
	strayed := make(chan netns.Ends, 16) // what the proxy would have to decide
	for _, a := range []netip.Addr{netns.ProxyAddr4, netns.ProxyAddr6} {
		u, err := inner.ListenDatagrams(netip.AddrPortFrom(a, netns.DatagramPort))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		go netns.TakeDatagrams(u, func(d netns.Datagram) {
			if !r.Answer(d) {
				strayed <- d.Ends
			}
		})
	}
	echo(t, inner, "0.0.0.0:7000")
	server := echo(t, inner, "[::]:7001")
	for to, want := range map[string]string{
		"10.88.0.7:7000": "0.0.0.0:7000 heard 10.88.0.8 say ",
		"10.99.0.7:7000": "0.0.0.0:7000 heard 10.99.0.8 say ",
		"[fd01::7]:7001": "[::]:7001 heard fd01::8 say ",
		"[fd02::7]:7001": "[::]:7001 heard fd02::8 say ",
		"10.99.0.7:7001": "[::]:7001 heard 10.99.0.8 say ",
	} {
		c := dialUDP(t, peer, to)
		for _, say := range []string{"one", "two"} {
			if got, err := ask(t, c, say); err != nil || got != want+say {
				t.Fatalf("%s: answer %q, %v; want %q", to, got, err, want+say)
			}
		}
	}
	if len(strayed) > 0 {
		t.Errorf("an answer was not taken for one: %v", <-strayed)
	}
	stranger := netip.MustParseAddrPort("10.99.0.8:9")
	if _, err := server.WriteToUDPAddrPort([]byte("hi"), stranger); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-strayed:
		if e.Destination != stranger {
			t.Errorf("%v", e)
		}
	case <-time.After(time.Minute):
		t.Error("what nobody has asked for was taken for an answer")
	}
}

func TestAssociationsAreBounded(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7")}
	outer, peer, inner := plumbed(t, own...)
	r, err := started(t, outer, inner, own, 2)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, inner, "10.88.0.7:5000")
	var first, c net.Conn
	for _, conn := range []*net.Conn{&first, &c} {
		*conn = dialUDP(t, peer, "10.88.0.7:5000")
		if _, err := ask(t, *conn, "hi"); err != nil {
			t.Fatal(err)
		}
	}
	c = dialUDP(t, peer, "10.88.0.7:5000")
	c.Write([]byte("hi"))
	if _, err := ask(t, first, "after that"); err != nil { // they are taken one after the other
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 16)); err == nil {
		t.Errorf("a third of two got %d bytes", n)
	}
	n := 0
	r.datagrams.Each(func(*association) { n++ })
	if n != 2 {
		t.Errorf("%d associations", n)
	}
}
