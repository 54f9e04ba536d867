// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Listen opens a TCP listener on addr inside the namespace.
func (n *Namespace) Listen(addr netip.AddrPort) (*net.TCPListener, error) {
	var l *net.TCPListener
	err := n.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket on addr inside the namespace.
func (n *Namespace) ListenPacket(addr netip.AddrPort) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return c, err
}

// Dial connects from inside the namespace to addr. network is "tcp" or "udp".
// Only making the socket needs a thread in the namespace; waiting for the
// connection does not, so that slow destinations hold no thread.
func (n *Namespace) Dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	h, err := Home()
	if err != nil {
		return nil, err
	}
	if h.id == n.id {
		var d net.Dialer
		return d.DialContext(ctx, network, addr.String())
	}
	return n.dialForeign(ctx, network, addr, dialOptions{})
}

// DialFrom is DialUnintercepted with an address of its own choice at this end.
// In a sealed namespace every address is local, so that any will do.
func (n *Namespace) DialFrom(ctx context.Context, network string, from, addr netip.AddrPort) (net.Conn, error) {
	return n.dialForeign(ctx, network, addr, dialOptions{mark: uninterceptedMark, from: from})
}

// DialUnintercepted is Dial for a sealed namespace whose interception rules are
// to let the connection through to whoever listens inside.
func (n *Namespace) DialUnintercepted(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	return n.dialForeign(ctx, network, addr, dialOptions{mark: uninterceptedMark})
}

type dialOptions struct {
	mark int            // 0 for none
	from netip.AddrPort // invalid for whatever the kernel picks
}

// apply sets a new socket up.
func (o dialOptions) apply(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if o.mark != 0 {
			optErr = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, o.mark))
		}
		if optErr == nil && o.from.IsValid() {
			// For IPv6 the route is not enough: the address must be a device's.
			optErr = setTransparent(int(fd), o.from.Addr().Is4())
		}
		if optErr == nil && o.from.IsValid() {
			optErr = os.NewSyscallError("bind", unix.Bind(int(fd), sockaddr(o.from)))
		}
	})
	if err != nil {
		return err
	}
	return optErr
}

func (n *Namespace) dialForeign(ctx context.Context, network string, addr netip.AddrPort, o dialOptions) (net.Conn,
	error) {
	conn, err := n.dialWith(ctx, network, addr, o)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	return conn, nil
}

func (n *Namespace) dialWith(ctx context.Context, network string, addr netip.AddrPort, o dialOptions) (net.Conn,
	error) {
	f, err := n.socket(network, addr.Addr())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := o.apply(f); err != nil {
		return nil, err
	}
	if err := connect(ctx, f, addr); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func (n *Namespace) socket(network string, addr netip.Addr) (*os.File, error) {
	family := unix.AF_INET6
	if addr.Unmap().Is4() {
		family = unix.AF_INET
	}
	var kind int
	switch network {
	case "tcp":
		kind = unix.SOCK_STREAM
	case "udp":
		kind = unix.SOCK_DGRAM
	default:
		return nil, net.UnknownNetworkError(network)
	}
	var fd int
	err := n.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), network), nil
}

// connect does what connect(2) describes for a non-blocking socket: start,
// wait for writability, read SO_ERROR.
func connect(ctx context.Context, f *os.File, addr netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var connErr error
	if err := raw.Control(func(fd uintptr) { connErr = unix.Connect(int(fd), sockaddr(addr)) }); err != nil {
		return err
	}
	if connErr == nil {
		return nil
	}
	if !errors.Is(connErr, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", connErr)
	}

	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()

	err = raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			connErr = os.NewSyscallError("getsockopt", err)
		case errno != 0:
			connErr = os.NewSyscallError("connect", unix.Errno(errno))
		default:
			if _, err := unix.Getpeername(int(fd)); err != nil {
				return false // still connecting
			}
			connErr = nil
		}
		return true
	})
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if err != nil {
		return err
	}
	return connErr
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if a := addr.Addr().Unmap(); a.Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// OriginalDestination returns the address a redirected connection was opened
// for, before the interception rules rewrote it (SO_ORIGINAL_DST, from the
// kernel's nf_conntrack socket options).
func OriginalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("original destination: not a TCP connection")
	}
	v4 := local.AddrPort().Addr().Unmap().Is4()

	var dst netip.AddrPort
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if v4 {
			dst, optErr = originalDst4(int(fd))
		} else {
			dst, optErr = originalDst6(int(fd))
		}
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	return dst, nil
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST of
// linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h.
const soOriginalDst = 80

// originalDst4 reads a struct sockaddr_in through the 20-byte option type that
// x/sys has a getter for.
func originalDst4(fd int) (netip.AddrPort, error) {
	mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := mreq.Multiaddr // family(2) port(2) address(4) …
	port := uint16(b[2])<<8 | uint16(b[3])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
}

// originalDst6 reads a struct sockaddr_in6, which IPv6MTUInfo begins with.
func originalDst6(fd int) (netip.AddrPort, error) {
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	// The kernel stores the port in network byte order.
	p := info.Addr.Port
	return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), p<<8|p>>8), nil
}
