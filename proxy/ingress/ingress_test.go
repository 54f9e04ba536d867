// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/netns"
)

// plumbed returns an outer namespace as an engine prepares it, with an address
// that its peer namespace can reach, and the sealed inner one.
func plumbed(t *testing.T, own ...netip.Addr) (outer, peer, inner *netns.Namespace) {
	t.Helper()
	make := func() *netns.Namespace {
		n, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	outer, peer, inner = make(), make(), make()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(outer.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(peer.Fd())}
	if err := h.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		up(t, outer, "eth0", a.String()+"/24")
		up(t, peer, "eth1", a.Next().String()+"/24")
	}
	up(t, outer, "lo", "")
	if _, err := netns.Seal(inner, own); err != nil {
		t.Fatal(err)
	}
	if err := netns.Intercept(inner, own); err != nil {
		t.Fatal(err)
	}
	return outer, peer, inner
}

// started starts a relay that ends before its namespaces are closed.
func started(t *testing.T, outer, inner *netns.Namespace, own []netip.Addr, limit int) (*Relay, error) {
	r, err := Start(t.Context(), outer, inner, own, Limits{Connections: limit})
	if err == nil {
		t.Cleanup(r.Wait)
	}
	return r, err
}

func up(t *testing.T, n *netns.Namespace, name, addr string) {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := h.AddrAdd(link, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// greet makes a server inside that says its name, and what it heard from whom.
func greet(t *testing.T, inner *netns.Namespace, addr string) {
	t.Helper()
	l, err := inner.Listen(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			heard, _ := io.ReadAll(c)
			client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			c.Write(append([]byte(addr+" heard "+client.String()+" say "), heard...))
			c.Close()
		}
	}()
}

func TestInboundConnectionsReachTheWorkload(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7"), netip.MustParseAddr("fd00:88::7")}
	outer, peer, inner := plumbed(t, own...)
	r, err := started(t, outer, inner, own, 16)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, inner, "10.88.0.7:8080")
	greet(t, inner, "[fd00:88::7]:8080")
	greet(t, inner, "10.88.0.7:53")
	greet(t, inner, "127.0.0.1:9090")
	greet(t, inner, "[::1]:9091")
	for _, tt := range []struct {
		name     string
		from     *netns.Namespace
		to, want string
	}{
		{"from another host", peer, "10.88.0.7:8080", "10.88.0.7:8080 heard 10.88.0.8 say hi"},
		{"from another host over IPv6", peer, "[fd00:88::7]:8080", "[fd00:88::7]:8080 heard fd00:88::8 say hi"},
		{"to a name server, not the sandbox's", peer, "10.88.0.7:53", "10.88.0.7:53 heard 10.88.0.8 say hi"},
		{"to a server on loopback only", peer, "10.88.0.7:9090", "127.0.0.1:9090 heard 127.0.0.1 say hi"},
		{"port-forward", outer, "127.0.0.1:9090", "127.0.0.1:9090 heard 127.0.0.1 say hi"},
		{"port-forward over IPv6", outer, "[::1]:9091", "[::1]:9091 heard ::1 say hi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.from.Dial(t.Context(), "tcp", netip.MustParseAddrPort(tt.to))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "hi")
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != tt.want {
				t.Errorf("answer %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	c, err := peer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.88.0.7:1"))
	if err == nil {
		_, err = io.ReadAll(c)
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port nobody listens on: %v", err)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if c, err := peer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.88.0.7:8080")); err == nil {
		c.Close()
		t.Error("the rules are still there")
	}
}

// TestResetsArePassedOn has either end break a connection off, with bytes under
// way: the other one must not take what has come for all there is.
func TestResetsArePassedOn(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.88.0.7")}
	outer, peer, inner := plumbed(t, own...)
	if _, err := started(t, outer, inner, own, 16); err != nil {
		t.Fatal(err)
	}
	l, err := inner.Listen(netip.MustParseAddrPort("10.88.0.7:8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, clientBreaks := range []bool{true, false} {
		client, err := peer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.88.0.7:8080"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		breaks, sees := server, client
		if clientBreaks {
			breaks, sees = client, server
		}
		io.WriteString(breaks, "half of ")
		_ = sees.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(sees, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		_ = breaks.(*net.TCPConn).SetLinger(0)
		breaks.Close()
		if _, err := sees.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client breaks it off %v: the other end sees %v", clientBreaks, err)
		}
	}
}
