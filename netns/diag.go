// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Diag asks the kernel which socket a connection of one namespace belongs to
// (sock_diag(7)). It is safe for concurrent use.
type Diag struct {
	query *netlinkQuery
	mu    sync.Mutex    // the kernel gives one list of a socket at a time
	lists *netlink.Conn // which come in parts
}

// NewDiag opens diagnostics sockets in the namespace.
func NewDiag(n *Namespace) (*Diag, error) {
	q, err := openNetlinkQuery(n, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open socket diagnostics: %w", err)
	}
	lists, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: n.Fd()})
	if err != nil {
		_ = q.close()
		return nil, fmt.Errorf("open socket diagnostics: %w", err)
	}
	return &Diag{query: q, lists: lists}, nil
}

// Close closes the diagnostics sockets.
func (d *Diag) Close() error { return errors.Join(d.query.close(), d.lists.Close()) }

// ErrNoSocket says that no socket has the connection any more.
var ErrNoSocket = errors.New("no socket has this connection")

// TCPInode returns the inode of the TCP socket whose own end is local and whose
// peer is remote, as its owner sees them. It is an exact look-up in the
// kernel's connection table, not a walk through it.
func (d *Diag) TCPInode(local, remote netip.AddrPort) (uint64, error) {
	var inode uint64
	err := d.query.roundTrip(unix.SOCK_DIAG_BY_FAMILY, diagRequest(local, remote), func(answer []byte) (err error) {
		// Where there is no such connection, the kernel answers with whoever listens
		// at its port.
		if !isConnection(answer, local, remote) {
			return ErrNoSocket
		}
		inode, err = diagInode(answer)
		return err
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, ErrNoSocket):
		return 0, ErrNoSocket
	case err != nil:
		return 0, fmt.Errorf("socket diagnostics: %w", err)
	}
	return inode, nil
}

// UDPInodes returns the inodes of all UDP sockets that may have sent a datagram
// from local to remote: those with the port, on that address or on any, that are
// connected to nobody else. Several sockets can share a port (SO_REUSEPORT).
func (d *Diag) UDPInodes(local, remote netip.AddrPort) ([]uint64, error) {
	var inodes []uint64
	err := d.each(unix.IPPROTO_UDP, ^uint32(0), func(answer []byte) error {
		if !maySend(answer, local, remote) {
			return nil
		}
		inode, err := diagInode(answer)
		if errors.Is(err, ErrNoSocket) {
			return nil
		}
		inodes = append(inodes, inode)
		return err
	})
	if err == nil && len(inodes) == 0 {
		err = ErrNoSocket
	}
	return inodes, err
}

// Listening returns the addresses at which TCP sockets wait for connections, and those of UDP sockets that
// are connected to nobody.
func (d *Diag) Listening() (tcp, udp []netip.AddrPort, err error) {
	const listen, closed = 1 << unix.BPF_TCP_LISTEN, 1 << unix.BPF_TCP_CLOSE // states; UDP has the second
	collect := func(list *[]netip.AddrPort) func([]byte) error {
		return func(answer []byte) error {
			if len(answer) < diagMsgSize {
				return fmt.Errorf("short answer of %d bytes", len(answer))
			}
			own, _ := diagEnds(answer)
			*list = append(*list, own)
			return nil
		}
	}
	if err := d.each(unix.IPPROTO_TCP, listen, collect(&tcp)); err != nil {
		return nil, nil, err
	}
	return tcp, udp, d.each(unix.IPPROTO_UDP, closed, collect(&udp))
}

// each calls f for the struct inet_diag_msg of each socket of a protocol that is in
// one of the states. IPv6 sockets, which send to IPv4 addresses too, come last.
func (d *Diag) each(protocol byte, states uint32, f func(answer []byte) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, diagRequestSize)
		request[0], request[1] = family, protocol
		binary.NativeEndian.PutUint32(request[4:], states)
		msgs, err := d.lists.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   request,
		})
		if err != nil {
			return fmt.Errorf("socket diagnostics: %w", err)
		}
		for _, m := range msgs {
			if err := f(m.Data); err != nil {
				return fmt.Errorf("socket diagnostics: %w", err)
			}
		}
	}
	return nil
}

// maySend reports whether the socket of a struct inet_diag_msg may have sent a
// datagram from local to remote.
func maySend(b []byte, local, remote netip.AddrPort) bool {
	if len(b) < diagMsgSize {
		return false
	}
	own, peer := diagEnds(b)
	matches := func(a, want netip.AddrPort) bool {
		return a.Port() == want.Port() && (a.Addr().IsUnspecified() || a.Addr() == want.Addr().Unmap())
	}
	return matches(own, local) && (peer.Port() == 0 || matches(peer, remote))
}

// isConnection reports whether the socket of a struct inet_diag_msg is the one that
// is connected from local to remote.
func isConnection(b []byte, local, remote netip.AddrPort) bool {
	if len(b) < diagMsgSize {
		return false
	}
	own, peer := diagEnds(b)
	return own == netip.AddrPortFrom(local.Addr().Unmap(), local.Port()) &&
		peer == netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
}

// diagEnds reads the addresses and ports of struct inet_diag_sockid: the
// socket's own and its peer's.
func diagEnds(b []byte) (own, peer netip.AddrPort) {
	end := func(port, addr int) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(b[addr : addr+16])).Unmap()
		if b[0] == unix.AF_INET {
			a = netip.AddrFrom4([4]byte(b[addr : addr+4]))
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[port:]))
	}
	return end(4, 8), end(6, 24)
}

// Sizes of struct inet_diag_req_v2 and inet_diag_msg.
const (
	diagRequestSize = 56
	diagMsgSize     = 72
)

// diagRequest encodes struct inet_diag_req_v2 of linux/inet_diag.h.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, diagRequestSize)
	la, ra := local.Addr().Unmap(), remote.Addr().Unmap()
	b[0] = unix.AF_INET6
	if la.Is4() {
		b[0] = unix.AF_INET
	}
	b[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // every state
	binary.BigEndian.PutUint16(b[8:], local.Port())
	binary.BigEndian.PutUint16(b[10:], remote.Port())
	copy(b[12:28], la.AsSlice())
	copy(b[28:44], ra.AsSlice())
	for i := 48; i < 56; i++ {
		b[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return b
}

// diagInode reads idiag_inode of struct inet_diag_msg.
func diagInode(b []byte) (uint64, error) {
	const inodeOffset = 68
	if len(b) < diagMsgSize {
		return 0, fmt.Errorf("short answer of %d bytes", len(b))
	}
	inode := binary.NativeEndian.Uint32(b[inodeOffset:])
	if inode == 0 {
		return 0, ErrNoSocket // closed by its owner, e.g. in TIME_WAIT
	}
	return uint64(inode), nil
}
