// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// netlinkQuery is a netlink(7) socket for questions with one answer, which the
// kernel gives within the call that asks. Every connection of the workload waits
// for some of these: so it is two system calls for each, and no poller.
type netlinkQuery struct {
	mu       sync.Mutex // guards what follows
	fd       int        // -1 once it is closed
	sequence uint32     // of the last question
	buf      [8192]byte
}

// openNetlinkQuery opens a socket of a netlink family in a namespace.
func openNetlinkQuery(n *Namespace, family int) (*netlinkQuery, error) {
	q := &netlinkQuery{fd: -1}
	err := n.Do(func() (err error) {
		q.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	// It is not to be waited for, whatever happens.
	if err := unix.SetsockoptTimeval(q.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		unix.Close(q.fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return q, nil
}

func (q *netlinkQuery) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	fd := q.fd
	if q.fd = -1; fd < 0 {
		return os.ErrClosed
	}
	return unix.Close(fd)
}

// roundTrip sends a question and gives what the answer carries to read, which must not
// keep it. An answer that is an error is returned as its errno.
func (q *netlinkQuery) roundTrip(kind uint16, question []byte, read func(answer []byte) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sequence++
	message := make([]byte, 0, unix.NLMSG_HDRLEN+len(question))
	message = binary.NativeEndian.AppendUint32(message, uint32(cap(message)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST)
	message = binary.NativeEndian.AppendUint32(message, q.sequence)
	message = binary.NativeEndian.AppendUint32(message, 0) // whose it is, the kernel knows
	if err := unix.Sendto(q.fd, append(message, question...), 0,
		&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for {
		n, _, err := unix.Recvfrom(q.fd, q.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		answer := q.buf[:n]
		if n < unix.NLMSG_HDRLEN || binary.NativeEndian.Uint32(answer[8:]) != q.sequence {
			continue // to an earlier question
		}
		// Others may follow, to no question of ours.
		if size := binary.NativeEndian.Uint32(answer); size >= unix.NLMSG_HDRLEN && size < uint32(n) {
			answer = answer[:size]
		}
		payload := answer[unix.NLMSG_HDRLEN:]
		if binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR && len(payload) >= 4 {
			return unix.Errno(-int32(binary.NativeEndian.Uint32(payload)))
		}
		return read(payload)
	}
}
