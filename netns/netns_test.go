// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sealed returns a sealed namespace with its interception rules in place.
func sealed(t *testing.T, own ...netip.Addr) *Namespace {
	t.Helper()
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if v6, err := Seal(n, own); err != nil || !v6 {
		t.Fatalf("Seal: ipv6 %v, %v", v6, err)
	}
	if err := Intercept(n, own); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSealedNamespaceHasOnlyLoopback(t *testing.T) {
	n := sealed(t)
	devices, err := Devices(n)
	if err != nil {
		t.Fatal(err)
	}
	if len(devices) != 0 {
		t.Errorf("devices beside lo: %v", devices)
	}
}

func TestInterceptedConnectionKeepsItsDestination(t *testing.T) {
	n := sealed(t)
	for _, tt := range []struct{ proxy, dst, src string }{
		{"10.200.0.1", "93.184.216.34:8443", "10.200.0.2"},
		{"fd6f:7065:6e73::1", "[2606:2800:220:1::1]:8443", "fd6f:7065:6e73::2"},
		{"10.200.0.1", "10.200.0.1:3128", "10.200.0.1"},
		{"10.200.0.1", "169.254.169.254:80", "10.200.0.2"},
	} {
		t.Run(tt.dst, func(t *testing.T) {
			l, err := n.Listen(netip.AddrPortFrom(netip.MustParseAddr(tt.proxy), TransparentPort))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dst := netip.MustParseAddrPort(tt.dst)
			client, err := n.Dial(t.Context(), "tcp", dst)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if got := client.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); got.String() != tt.src {
				t.Errorf("the workload's address is %s, want %s", got, tt.src)
			}
			server, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			got, err := OriginalDestination(server)
			if err != nil || got != dst {
				t.Errorf("OriginalDestination = %v, %v; want %v", got, err, dst)
			}
			echo(t, client, server)
		})
	}
}

func echo(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, end := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := end[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(end[1], buf); err != nil || string(buf) != "ping" {
			t.Fatalf("read %q, %v", buf, err)
		}
	}
}

func TestDNSGoesToTheSandboxServer(t *testing.T) {
	n := sealed(t)
	l, err := n.ListenPacket(netip.AddrPortFrom(ProxyAddr4, DNSPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, resolver := range []string{"8.8.8.8:53", "127.0.0.53:53", "10.0.0.1:53"} {
		c, err := n.Dial(t.Context(), "udp", netip.MustParseAddrPort(resolver))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("q")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8)
		_, from, err := l.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.WriteToUDPAddrPort([]byte("a"), from); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "a" {
			t.Errorf("%s: answer %q, %v", resolver, buf[:n], err)
		}
		c.Close()
	}
}

func TestOtherUDPIsRefusedAtOnce(t *testing.T) {
	n := sealed(t)
	for _, dst := range []string{"93.184.216.34:443", "[2606:2800:220:1::1]:443"} {
		c, err := n.Dial(t.Context(), "udp", netip.MustParseAddrPort(dst))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("quic")); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", dst, err)
		}
		c.Close()
	}
}

func TestOwnAddressesAreReachedWithoutTheProxy(t *testing.T) {
	own := netip.MustParseAddr("10.88.0.7")
	n := sealed(t, own)
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080", "10.88.0.7:8080"} {
		l, err := n.Listen(netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		c, err := n.Dial(t.Context(), "tcp", netip.MustParseAddrPort(addr))
		if err != nil {
			t.Errorf("%s: %v", addr, err)
		} else {
			c.Close()
		}
		l.Close()
	}
}

func TestDiagFindsTheOwningSocket(t *testing.T) {
	n := sealed(t)
	l, err := n.Listen(netip.AddrPortFrom(ProxyAddr4, TransparentPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dst := netip.MustParseAddrPort("93.184.216.34:443")
	client, err := n.Dial(t.Context(), "tcp", dst)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d, err := NewDiag(n)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	inode, err := d.TCPInode(client.LocalAddr().(*net.TCPAddr).AddrPort(), dst)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := client.(*net.TCPConn).SyscallConn()
	var want uint64
	raw.Control(func(fd uintptr) {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(fd), &st); err == nil {
			want = st.Ino
		}
	})
	if inode != want {
		t.Errorf("inode %d, want %d", inode, want)
	}
	if _, err := d.TCPInode(netip.MustParseAddrPort("10.200.0.2:1"), dst); !errors.Is(err, ErrNoSocket) {
		t.Errorf("unknown connection: %v, want ErrNoSocket", err)
	}
	// An IPv6 socket may have an IPv4 connection.
	local := netip.AddrPortFrom(WorkloadAddr4, 40000)
	mapped, err := dialFromPort(n, netip.AddrPortFrom(netip.AddrFrom16(local.Addr().As16()), local.Port()), dst)
	if err != nil {
		t.Fatal(err)
	}
	defer mapped.Close()
	if inode, err := d.TCPInode(local, dst); err != nil || inode == 0 || inode == want {
		t.Errorf("an IPv6 socket: inode %d, %v", inode, err)
	}
}

// TestDiagTakesNoListenerForAConnection asks for connections that are gone, at
// whose port somebody listens: the kernel answers with that.
func TestDiagTakesNoListenerForAConnection(t *testing.T) {
	n := sealed(t)
	d, err := NewDiag(n)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct{ listen, local, remote string }{
		{"0.0.0.0:40000", "10.200.0.2:40000", "93.184.216.34:443"},
		{"[::]:40001", "10.200.0.2:40001", "93.184.216.34:443"},
		{"[::]:40001", "[fd6f:7065:6e73::2]:40001", "[2606:2800:220:1::1]:443"},
	} {
		l, err := n.Listen(netip.MustParseAddrPort(tt.listen))
		if err != nil {
			t.Fatal(err)
		}
		if inode, err := d.TCPInode(netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort(tt.remote)); !errors.Is(err, ErrNoSocket) {
			t.Errorf("%s: inode %d, %v, want ErrNoSocket", tt.listen, inode, err)
		}
		l.Close()
	}
}

func TestDialReportsRefusalAndTimeout(t *testing.T) {
	n, err := New() // lo is up, nothing listens
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := Seal(n, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Dial(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of a closed port: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Dial(ctx, "tcp", netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Error("dial with a cancelled context succeeded")
	}
}

func TestOpenRefusesWhatIsNoNetworkNamespace(t *testing.T) {
	for _, path := range []string{"/proc/self/ns/mnt", "/dev/null", "/nonexistent"} {
		if _, err := Open(path); err == nil {
			t.Errorf("Open(%s) succeeded", path)
		}
	}
}

func TestDoLeavesTheProcessWhereItWas(t *testing.T) {
	n := sealed(t)
	err := n.Do(func() error {
		link, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if h, _ := Home(); strings.Contains(link, "net:") && n.ID() == h.ID() {
			t.Error("a new namespace has the home namespace's identity")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if h, _ := Home(); again.ID() != h.ID() {
		t.Error("the thread did not come home")
	}
}
