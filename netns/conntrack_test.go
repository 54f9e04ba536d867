// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// dialFromPort connects from a port that other connections may have as well.
func dialFromPort(n *Namespace, src, dst netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() error {
		family, at := unix.AF_INET6, func(a netip.AddrPort) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
		}
		if src.Addr().Is4() {
			family, at = unix.AF_INET, sockaddr
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, at(src)); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		if err := unix.Connect(fd, at(dst)); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		conn, err = net.FileConn(f)
		return err
	})
	return conn, err
}

// TestOriginalEndsOfConnectionsWithOnePort has connections that differ by their
// destination alone, which the rules make one of.
func TestOriginalEndsOfConnectionsWithOnePort(t *testing.T) {
	n := sealed(t)
	tracked, err := NewConntrack(n)
	if err != nil {
		t.Fatal(err)
	}
	defer tracked.Close()
	for _, tt := range []struct {
		proxy, src netip.Addr
		dsts       []string
	}{
		{ProxyAddr4, WorkloadAddr4, []string{"93.184.216.34:443", "93.184.216.34:80", "93.184.216.35:443", "10.200.0.1:3128"}},
		{ProxyAddr6, WorkloadAddr6, []string{"[2606:2800:220:1::1]:443", "[2606:2800:220:1::2]:443"}},
	} {
		l, err := n.Listen(netip.AddrPortFrom(tt.proxy, TransparentPort))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		src, rewritten := netip.AddrPortFrom(tt.src, 40000), 0
		for _, text := range tt.dsts {
			dst := netip.MustParseAddrPort(text)
			client, err := dialFromPort(n, src, dst)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			if server.RemoteAddr().(*net.TCPAddr).AddrPort() != src {
				rewritten++
			}
			if gotSrc, gotDst, err := tracked.Original(server); err != nil || gotSrc != src || gotDst != dst {
				t.Errorf("%v to %v, %v; want %v to %v", gotSrc, gotDst, err, src, dst)
			}
		}
		if rewritten == 0 {
			t.Error("the kernel rewrote no port: the test shows nothing")
		}
	}
}
