// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestDatagramsKeepTheirDestination(t *testing.T) {
	n := sealed(t)
	for _, tt := range []struct{ proxy, dst string }{
		{"10.200.0.1", "93.184.216.34:4433"},
		{"fd6f:7065:6e73::1", "[2606:2800:220:1::1]:4433"},
	} {
		t.Run(tt.dst, func(t *testing.T) {
			l, err := n.ListenDatagrams(netip.AddrPortFrom(netip.MustParseAddr(tt.proxy), DatagramPort))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dst := netip.MustParseAddrPort(tt.dst)
			client, err := n.Dial(t.Context(), "udp", dst)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(patience))
			l.SetDeadline(time.Now().Add(patience))
			if _, err := client.Write([]byte("first")); err != nil {
				t.Fatal(err)
			}
			d, err := ReadDatagram(l, make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			local := client.LocalAddr().(*net.UDPAddr).AddrPort()
			if d.Destination != dst || d.Source != local || string(d.Payload) != "first" {
				t.Fatalf("%+v, from %s", d, local)
			}

			// A socket between the two takes what follows, and answers.
			between, err := n.DatagramsBetween(d.Destination, d.Source)
			if err != nil {
				t.Fatal(err)
			}
			defer between.Close()
			between.SetDeadline(time.Now().Add(patience))
			if _, err := client.Write([]byte("second")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 64)
			if k, err := between.Read(b); err != nil || string(b[:k]) != "second" {
				t.Fatalf("%q, %v", b[:k], err)
			}
			if _, err := between.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			if k, err := client.Read(b); err != nil || string(b[:k]) != "answer" {
				t.Fatalf("%q, %v", b[:k], err)
			}
		})
	}
}

func TestUnreachableIsSeenAtOnce(t *testing.T) {
	n := sealed(t)
	for _, tt := range []struct{ proxy, dst string }{
		{"10.200.0.1", "93.184.216.34:4433"},
		{"fd6f:7065:6e73::1", "[2606:2800:220:1::1]:4433"},
	} {
		l, err := n.ListenDatagrams(netip.AddrPortFrom(netip.MustParseAddr(tt.proxy), DatagramPort))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.SetDeadline(time.Now().Add(patience))
		client, err := n.Dial(t.Context(), "udp", netip.MustParseAddrPort(tt.dst))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(patience))
		for range 3 { // whatever the kernel's rate limit for its own messages is
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			d, err := ReadDatagram(l, make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Unreachable(d); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: read: %v, want connection refused", tt.dst, err)
			}
		}
	}
}

// What is the workload's own never comes to the proxy.
func TestLocalDatagramsStay(t *testing.T) {
	n := sealed(t)
	l, err := n.ListenDatagrams(netip.AddrPortFrom(ProxyAddr4, DatagramPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, addr := range []string{"127.0.0.1:7777", "10.200.0.2:7777"} {
		server, err := n.ListenPacket(netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		client, err := n.Dial(t.Context(), "udp", netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		client.Write([]byte("hello"))
		server.SetDeadline(time.Now().Add(patience))
		if _, _, err := server.ReadFrom(make([]byte, 8)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		client.Close()
		server.Close()
	}
}
