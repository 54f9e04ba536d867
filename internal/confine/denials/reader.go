// SPDX-License-Identifier: Apache-2.0

package denials

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxPending is how many accesses wait for what else is said of their event.
const maxPending = 256

// maxDomains is how many domains are remembered.
const maxDomains = 1024

// ErrOff says that there are no records: the node has auditing off, or the kernel
// has none for this process, as outside of the initial PID namespace.
var ErrOff = errors.New("the kernel's auditing is off (auditctl -e 1 turns it on, for the whole node)")

// Reader reads the audit log's records as they pass. Others, such as
// auditd, get them all the same.
type Reader struct {
	file    *os.File
	ours    func(pid int) bool
	domains map[string]bool // whether a domain is ours
	pending map[string]Denial
	unknown map[string]string // event to domain, of pending
}

// Open starts reading. ours reports whether a process, by its pid as seen from
// outside, is one whose denials are wanted. It needs CAP_AUDIT_READ, and the error
// is ErrOff where there is nothing to read.
func Open(ours func(pid int) bool) (*Reader, error) {
	on, err := enabled()
	if err != nil {
		return nil, err
	}
	if !on {
		return nil, ErrOff
	}
	return open(ours)
}

// open joins the audit log's readers.
func open(ours func(pid int) bool) (*Reader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r := newReader(ours)
	r.file = os.NewFile(uintptr(fd), "audit")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		r.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.AUDIT_NLGRP_READLOG); err != nil {
		r.Close()
		return nil, fmt.Errorf("join the audit log's readers: %w", err)
	}
	return r, nil
}

func newReader(ours func(pid int) bool) *Reader {
	return &Reader{ours: ours, domains: map[string]bool{}, pending: map[string]Denial{}, unknown: map[string]string{}}
}

// Close ends Read.
func (r *Reader) Close() { r.file.Close() }

// Read reports denials until the reader is closed. lost is told when the kernel
// had more records than were read in time.
func (r *Reader) Read(report func(Denial), lost func(reason string)) error {
	return r.each(lost, func(kind uint16, text string) { r.take(kind, text, report) })
}

// each calls f for each record, by its type and its text, until the reader is closed.
func (r *Reader) each(lost func(reason string), f func(kind uint16, text string)) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.file.Read(buffer)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost("some of what Landlock refused: the audit log came faster than it could be read")
			continue
		case err != nil:
			return fmt.Errorf("read the audit log: %w", err)
		}
		if n < unix.NLMSG_HDRLEN {
			continue
		}
		f(binary.NativeEndian.Uint16(buffer[4:]), string(buffer[unix.NLMSG_HDRLEN:n]))
	}
}

// take takes in one record. An access comes first; its domain is described once,
// in the same event as its first denial; then the system call tells the process.
func (r *Reader) take(kind uint16, text string, report func(Denial)) {
	if kind != typeAccess && kind != typeDomain && kind != typeSyscall {
		return
	}
	rec, ok := parse(text)
	if !ok {
		return
	}
	switch kind {
	case typeAccess:
		if d, ok := rec.access(); ok {
			if len(r.pending) >= maxPending {
				clear(r.pending) // whose system calls nobody told of
				clear(r.unknown)
			}
			r.pending[rec.event], r.unknown[rec.event] = d, rec.domain
		}
	case typeDomain:
		if rec.pid != 0 {
			if len(r.domains) >= maxDomains {
				clear(r.domains)
			}
			r.domains[rec.domain] = r.ours(rec.pid)
		}
	case typeSyscall:
		d, ok := r.pending[rec.event]
		if !ok {
			return
		}
		domain := r.unknown[rec.event]
		delete(r.pending, rec.event)
		delete(r.unknown, rec.event)
		if !r.domains[domain] && !r.ours(rec.pid) {
			return
		}
		d.PID, d.Binary = rec.pid, rec.exe
		report(d)
	}
}

// enabled asks the kernel whether auditing is on (audit_status in linux/audit.h).
func enabled() (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return false, os.NewSyscallError("setsockopt", err)
	}
	request := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(request, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint16(request[4:], unix.AUDIT_GET)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return false, fmt.Errorf("ask whether auditing is on: %w", err)
	}
	return parseStatus(answer[:n])
}

func parseStatus(b []byte) (on bool, err error) {
	const enabledAt = unix.NLMSG_HDRLEN + 4 // after the mask
	if len(b) < enabledAt+4 {
		return false, errors.New("the kernel's answer about auditing is too short")
	}
	if kind := binary.NativeEndian.Uint16(b[4:]); kind == unix.NLMSG_ERROR {
		return false, nil
	} else if kind != unix.AUDIT_GET {
		return false, fmt.Errorf("the kernel does not say whether auditing is on: message of type %d", kind)
	}
	return binary.NativeEndian.Uint32(b[enabledAt:]) != 0, nil
}
