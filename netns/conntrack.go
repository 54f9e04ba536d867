// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conntrack asks the kernel how an intercepted connection was before it was
// rewritten (the ctnetlink subsystem of nfnetlink, linux/netfilter/nfnetlink_conntrack.h).
// It is safe for concurrent use.
type Conntrack struct{ query *netlinkQuery }

// NewConntrack opens a connection tracking socket in the namespace.
func NewConntrack(n *Namespace) (*Conntrack, error) {
	q, err := openNetlinkQuery(n, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	c := &Conntrack{q}
	// No connection has port 0, so that the only answer is that there is none.
	nobody := netip.AddrPortFrom(ProxyAddr4, 0)
	if _, _, err := c.original(nobody, nobody); !errors.Is(err, ErrNoConnection) {
		c.Close()
		return nil, fmt.Errorf("the kernel needs nf_conntrack_netlink: %w", err)
	}
	return c, nil
}

// Close closes the connection tracking socket.
func (c *Conntrack) Close() error { return c.query.close() }

// ErrNoConnection says that the kernel does not know the connection any more.
var ErrNoConnection = errors.New("the kernel does not track this connection")

// Original returns both ends of a redirected connection as whoever opened it
// names them. The destination is what the interception rules rewrote. The
// source has another port than the connection's own address says where two
// connections have one port, to different destinations: the rules make one of
// these, and the kernel then tells them apart by the port (RFC 5382 section 3.1
// has the same of any address translation).
func (c *Conntrack) Original(conn *net.TCPConn) (source, destination netip.AddrPort, err error) {
	local, ok1 := conn.LocalAddr().(*net.TCPAddr)
	remote, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return source, destination, errors.New("original ends: not a TCP connection")
	}
	source, destination, err = c.original(unmap(local.AddrPort()), unmap(remote.AddrPort()))
	if err != nil {
		return source, destination, fmt.Errorf("original ends: %w", err)
	}
	return source, destination, nil
}

// original looks up the connection whose answers go from here to there.
func (c *Conntrack) original(here, there netip.AddrPort) (source, destination netip.AddrPort, err error) {
	request, err := conntrackRequest(here, there)
	if err != nil {
		return source, destination, err
	}
	err = c.query.roundTrip(unix.NFNL_SUBSYS_CTNETLINK<<8|ctGet, request, func(answer []byte) (err error) {
		source, destination, err = parseConntrack(answer)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoConnection
	}
	return source, destination, err
}

// Of enum cntl_msg_types, ctattr_type, ctattr_tuple, ctattr_ip and
// ctattr_l4proto.
const (
	ctGet = 1

	ctTupleOriginal = 1
	ctTupleReply    = 2

	ctTupleIP    = 1
	ctTupleProto = 2

	ctIP4Source      = 1
	ctIP4Destination = 2
	ctIP6Source      = 3
	ctIP6Destination = 4

	ctProtoNumber      = 1
	ctProtoSource      = 2
	ctProtoDestination = 3

	nfgenmsgSize = 4 // struct nfgenmsg: family, version, resource id
)

func conntrackRequest(source, destination netip.AddrPort) ([]byte, error) {
	family, ipSource, ipDestination := byte(unix.AF_INET6), uint16(ctIP6Source), uint16(ctIP6Destination)
	if source.Addr().Is4() {
		family, ipSource, ipDestination = unix.AF_INET, ctIP4Source, ctIP4Destination
	}
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian
	attributes.Nested(ctTupleReply, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
			ip.Bytes(ipSource, source.Addr().AsSlice())
			ip.Bytes(ipDestination, destination.Addr().AsSlice())
			return nil
		})
		tuple.Nested(ctTupleProto, func(proto *netlink.AttributeEncoder) error {
			proto.Uint8(ctProtoNumber, unix.IPPROTO_TCP)
			proto.Uint16(ctProtoSource, source.Port())
			proto.Uint16(ctProtoDestination, destination.Port())
			return nil
		})
		return nil
	})
	b, err := attributes.Encode()
	return append([]byte{family, 0, 0, 0}, b...), err
}

// parseConntrack reads the ends of the original direction of an answer.
func parseConntrack(b []byte) (source, destination netip.AddrPort, err error) {
	if len(b) < nfgenmsgSize {
		return source, destination, fmt.Errorf("short answer of %d bytes", len(b))
	}
	attributes, err := netlink.NewAttributeDecoder(b[nfgenmsgSize:])
	if err != nil {
		return source, destination, err
	}
	attributes.ByteOrder = binary.BigEndian
	var t ctTuple
	for attributes.Next() {
		if attributes.Type() == ctTupleOriginal {
			attributes.Nested(t.decode)
		}
	}
	if err := attributes.Err(); err != nil {
		return source, destination, err
	}
	if !t.source.IsValid() || !t.destination.IsValid() {
		return source, destination, errors.New("an answer without addresses")
	}
	return netip.AddrPortFrom(t.source.Unmap(), t.sourcePort), netip.AddrPortFrom(t.destination.Unmap(),
		t.destinationPort), nil
}

type ctTuple struct {
	source, destination         netip.Addr
	sourcePort, destinationPort uint16
}

func (t *ctTuple) decode(attributes *netlink.AttributeDecoder) error {
	for attributes.Next() {
		switch attributes.Type() {
		case ctTupleIP:
			attributes.Nested(t.decodeAddresses)
		case ctTupleProto:
			attributes.Nested(t.decodePorts)
		}
	}
	return nil
}

func (t *ctTuple) decodeAddresses(attributes *netlink.AttributeDecoder) error {
	for attributes.Next() {
		switch a, _ := netip.AddrFromSlice(attributes.Bytes()); attributes.Type() {
		case ctIP4Source, ctIP6Source:
			t.source = a
		case ctIP4Destination, ctIP6Destination:
			t.destination = a
		}
	}
	return nil
}

func (t *ctTuple) decodePorts(attributes *netlink.AttributeDecoder) error {
	for attributes.Next() {
		switch attributes.Type() {
		case ctProtoSource:
			t.sourcePort = attributes.Uint16()
		case ctProtoDestination:
			t.destinationPort = attributes.Uint16()
		}
	}
	return nil
}
