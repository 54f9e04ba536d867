// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// census finds the processes that hold sockets. Only a look at every descriptor
// of every member tells all of them, and they all count; but one look serves
// everybody who asked before it began, so that many connections at once cost
// hardly more than one.
type census struct {
	members procs
	looking sync.Mutex // held by the round that looks
	mu      sync.Mutex
	next    *round // that has not begun; nil where nobody waits
	buffers buffers
	aside   aside
}

// round is one look at all descriptors, and what was found out about processes
// since.
type round struct {
	owners map[uint64][]int // by the inodes that are asked for
	err    error
	done   chan struct{}

	mu        sync.Mutex
	processes map[int]func() (Process, error)
}

// process calls identify for a process, the first time in the round.
func (r *round) process(pid int, identify func(pid int) (Process, error)) (Process, error) {
	r.mu.Lock()
	known := r.processes[pid]
	if known == nil {
		known = sync.OnceValues(func() (Process, error) { return identify(pid) })
		r.processes[pid] = known
	}
	r.mu.Unlock()
	return known()
}

// buffers are for the directories that a look reads. looking guards them.
type buffers struct {
	root, fds [16 << 10]byte
	link      [64]byte
}

func newCensus(members procs) *census { return &census{members: members} }

// ask returns a round that tells the members that have the socket open.
func (c *census) ask(inode uint64) (*round, error) {
	c.mu.Lock()
	r, first := c.next, c.next == nil
	if first {
		r = &round{owners: map[uint64][]int{}, processes: map[int]func() (Process, error){}, done: make(chan struct{})}
		c.next = r
	}
	r.owners[inode] = nil
	c.mu.Unlock()
	if first {
		c.looking.Lock() // others join meanwhile
		c.mu.Lock()
		c.next = nil
		c.mu.Unlock()
		r.err = c.look(r.owners)
		c.looking.Unlock()
		close(r.done)
	}
	<-r.done
	return r, r.err
}

// look adds each member that holds one of the sockets to its owners.
func (c *census) look(owners map[uint64][]int) error {
	root, err := openDir(unix.AT_FDCWD, c.members.root)
	if err != nil {
		return fmt.Errorf("open %s: %w", c.members.root, err)
	}
	defer unix.Close(root)
	c.aside.begin(time.Now())
	return eachEntry(root, c.buffers.root[:], func(inode uint64, name string) {
		pid, err := strconv.Atoi(name)
		if err != nil || c.aside.has(pid, inode) {
			return
		}
		if c.members.member(root, name) {
			c.lookAt(root, pid, name+"/fd", owners)
		} else if c.aside.growing && !c.members.hasProgram(root, name) {
			c.aside.add(pid, inode)
		}
	})
}

// aside are processes that hold nothing and never will: the kernel's own, and
// what has ended. Asking each what it is takes most of a look where a machine
// has many. They are forgotten soon, and known by their directory's inode too, which a
// process that gets the number of an ended one does not share.
type aside struct {
	known   map[asideKey]struct{}
	since   time.Time
	growing bool // looks follow each other closely enough for it to pay
}

type asideKey struct {
	pid   int
	inode uint64
}

const (
	asideHolds = time.Second
	maxAside   = 1 << 14
)

// begin begins a look.
func (a *aside) begin(now time.Time) {
	if now.Sub(a.since) < asideHolds {
		a.growing = true
		return
	}
	a.known, a.since, a.growing = map[asideKey]struct{}{}, now, false
}

func (a *aside) has(pid int, inode uint64) bool {
	_, ok := a.known[asideKey{pid, inode}]
	return ok
}

func (a *aside) add(pid int, inode uint64) {
	if len(a.known) < maxAside {
		a.known[asideKey{pid, inode}] = struct{}{}
	}
}

// lookAt is look for one process. One that has ended holds nothing.
func (c *census) lookAt(root, pid int, dir string, owners map[uint64][]int) {
	fds, err := openDir(root, dir)
	if err != nil {
		return
	}
	defer unix.Close(fds)
	held := map[uint64]bool{} // by several descriptors, perhaps
	_ = eachEntry(fds, c.buffers.fds[:], func(_ uint64, name string) {
		n, err := unix.Readlinkat(fds, name, c.buffers.link[:])
		if err != nil {
			return
		}
		inode, ok := socketInode(c.buffers.link[:n])
		if _, wanted := owners[inode]; ok && wanted && !held[inode] {
			held[inode] = true
			owners[inode] = append(owners[inode], pid)
		}
	})
}

// socketInode reads what proc_pid_fd(5) has for a socket: socket:[INODE].
func socketInode(link []byte) (uint64, bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("]"))
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(digits), 10, 64)
	return inode, err == nil
}

func openDir(at int, path string) (int, error) {
	return unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// eachEntry calls f for the inode and the name of each entry of an open directory
// (getdents(2)). It is os.File's without the poller, which a look would pay for at
// each process.
func eachEntry(dir int, buf []byte, f func(inode uint64, name string)) error {
	const inodeAt, sizeAt, nameAt = 0, 16, 19 // of struct linux_dirent64
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		for rest := buf[:n]; len(rest) > nameAt; {
			size := int(binary.NativeEndian.Uint16(rest[sizeAt:]))
			if size <= nameAt || size > len(rest) {
				return errors.New("the kernel's directory entry is not understood")
			}
			name, _, _ := bytes.Cut(rest[nameAt:size], []byte{0})
			if text := string(name); text != "." && text != ".." {
				f(binary.NativeEndian.Uint64(rest[inodeAt:]), text)
			}
			rest = rest[size:]
		}
	}
}
