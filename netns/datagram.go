// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// DatagramPort of the proxy's addresses takes the UDP datagrams that leave the
// workload.
const DatagramPort = 61002

// ListenDatagrams opens a socket that rules bring a family's UDP datagrams to, of
// whatever destination. ReadDatagram reads from it. No other has its address, but
// for those that DatagramsBetween makes later.
func (n *Namespace) ListenDatagrams(addr netip.AddrPort) (*net.UDPConn, error) {
	return n.transparent(addr, bindOnly, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		level, option := unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
		if addr.Addr().Is4() {
			level, option = unix.SOL_IP, unix.IP_RECVORIGDSTADDR
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
	})
}

// DatagramsBetween opens a socket that takes a workload's further datagrams from
// there to here, and whose own come from here, whoever has that address: inside a
// sealed namespace they all are local.
func (n *Namespace) DatagramsBetween(here, there netip.AddrPort) (*net.UDPConn, error) {
	return n.transparent(here, bindShared, func(fd int) error {
		return os.NewSyscallError("connect", unix.Connect(fd, sockaddr(there)))
	})
}

// DatagramsInto opens a socket in a sealed namespace that is connected to a
// program inside, there, as the host with the address here.
func (n *Namespace) DatagramsInto(here, there netip.AddrPort) (*net.UDPConn, error) {
	return n.transparent(here, bindShared, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, uninterceptedMark); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return os.NewSyscallError("connect", unix.Connect(fd, sockaddr(there)))
	})
}

// How transparent binds: to an address that no other socket may have, or to one
// that others have too, which the peers tell apart.
const (
	bindOnly   = 0
	bindShared = 1
)

// transparent opens a UDP socket that TPROXY may give others' datagrams to
// (ip(7), IP_TRANSPARENT).
func (n *Namespace) transparent(bind netip.AddrPort, sharing int, prepare func(fd int) error) (*net.UDPConn, error) {
	f, err := n.socket("udp", bind.Addr())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd := int(f.Fd()) // Fd makes the socket blocking; FileConn makes its copy non-blocking again
	if err := setTransparent(fd, bind.Addr().Is4()); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, sharing); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, sockaddr(bind)); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := prepare(fd); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// setTransparent lets a socket have an address that is no device's.
func setTransparent(fd int, v4 bool) error {
	level, option := unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	if v4 {
		level, option = unix.SOL_IP, unix.IP_TRANSPARENT
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
}

// Datagram is one that rules have brought to another socket than its destination's.
type Datagram struct {
	Ends
	Payload []byte
}

// ReadDatagram reads the next datagram into b, which its payload is part of.
func ReadDatagram(conn *net.UDPConn, b []byte) (Datagram, error) {
	var oob [128]byte
	n, oobn, _, src, err := conn.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return Datagram{}, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return Datagram{}, fmt.Errorf("original destination: %w", err)
	}
	for i := range messages {
		// IP_ORIGDSTADDR, IPV6_ORIGDSTADDR (linux/in.h, linux/in6.h)
		sa, err := unix.ParseOrigDstAddr(&messages[i])
		if err != nil {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return Datagram{Ends{unmap(src), netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}, b[:n]}, nil
		case *unix.SockaddrInet6:
			return Datagram{Ends{unmap(src), netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))}, b[:n]}, nil
		}
	}
	return Datagram{}, fmt.Errorf("original destination: not told by the kernel")
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Unreachable tells a datagram's sender that its destination's port is
// unreachable, as a host there would (RFC 792, RFC 4443 section 3.1): a program
// that waits for an answer gives up at once.
func (n *Namespace) Unreachable(d Datagram) error {
	v4 := d.Destination.Addr().Is4()
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	message := unreachable6(d)
	if v4 {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
		message = unreachable4(d)
	}
	return n.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		if err := setTransparent(fd, v4); err != nil {
			return err
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(d.Destination.Addr(), 0))); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("sendto",
			unix.Sendto(fd, message, unix.MSG_DONTWAIT, sockaddr(netip.AddrPortFrom(d.Source.Addr(), 0))))
	})
}

const (
	icmpHeader = 8
	ip4Header  = 20
	ip6Header  = 40
	udpHeader  = 8
)

// unreachable4 is an ICMP message of type 3, code 3, with the start of the
// datagram that it is about.
func unreachable4(d Datagram) []byte {
	b := make([]byte, icmpHeader, icmpHeader+ip4Header+udpHeader)
	b[0], b[1] = 3, 3
	ip := make([]byte, ip4Header)
	ip[0] = 4<<4 | ip4Header/4
	binary.BigEndian.PutUint16(ip[2:], uint16(ip4Header+udpHeader+len(d.Payload)))
	ip[8], ip[9] = 64, unix.IPPROTO_UDP
	copy(ip[12:], d.Source.Addr().AsSlice())
	copy(ip[16:], d.Destination.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b = append(append(b, ip...), udpHead(d)...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// unreachable6 is an ICMPv6 message of type 1, code 4. The kernel adds its
// checksum (ipv6(7), RFC 3542 section 3.1).
func unreachable6(d Datagram) []byte {
	b := make([]byte, icmpHeader, icmpHeader+ip6Header+udpHeader)
	b[0], b[1] = 1, 4
	ip := make([]byte, ip6Header)
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(udpHeader+len(d.Payload)))
	ip[6], ip[7] = unix.IPPROTO_UDP, 64
	src, dst := d.Source.Addr().As16(), d.Destination.Addr().As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	return append(append(b, ip...), udpHead(d)...)
}

func udpHead(d Datagram) []byte {
	b := make([]byte, udpHeader)
	binary.BigEndian.PutUint16(b, d.Source.Port())
	binary.BigEndian.PutUint16(b[2:], d.Destination.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(udpHeader+len(d.Payload)))
	return b
}

// checksum is the Internet checksum of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
