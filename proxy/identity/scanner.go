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

// socketScanner finds the processes that hold sockets. Only a look at every descriptor
// of every member tells all of them, and they all count; but one look serves
// everybody who asked before it began, so that many connections at once cost
// hardly more than one.
type socketScanner struct {
	members  procs
	scanning sync.Mutex // held by the scan that looks
	mu       sync.Mutex
	next     *scan // that has not begun; nil where nobody waits
	buffers  buffers
	ignored  ignored
}

// scan is one look at all descriptors, and what was found out about processes
// since.
type scan struct {
	owners map[uint64][]int // by the inodes that are asked for
	err    error
	done   chan struct{}

	mu        sync.Mutex
	processes map[int]func() (Process, error)
}

// process calls identify for a process, the first time in the scan.
func (r *scan) process(pid int, identify func(pid int) (Process, error)) (Process, error) {
	r.mu.Lock()
	known := r.processes[pid]
	if known == nil {
		known = sync.OnceValues(func() (Process, error) { return identify(pid) })
		r.processes[pid] = known
	}
	r.mu.Unlock()
	return known()
}

// buffers are for the directories that a look reads. scanning guards them.
type buffers struct {
	root, fds [16 << 10]byte
	link      [64]byte
}

func newSocketScanner(members procs) *socketScanner { return &socketScanner{members: members} }

// lookup returns a scan that tells the members that have the socket open.
func (c *socketScanner) lookup(inode uint64) (*scan, error) {
	c.mu.Lock()
	r, first := c.next, c.next == nil
	if first {
		r = &scan{owners: map[uint64][]int{}, processes: map[int]func() (Process, error){}, done: make(chan struct{})}
		c.next = r
	}
	r.owners[inode] = nil
	c.mu.Unlock()
	if first {
		c.scanning.Lock() // others join meanwhile
		c.mu.Lock()
		c.next = nil
		c.mu.Unlock()
		r.err = c.scanProc(r.owners)
		c.scanning.Unlock()
		close(r.done)
	}
	<-r.done
	return r, r.err
}

// scanProc adds each member that holds one of the sockets to its owners.
func (c *socketScanner) scanProc(owners map[uint64][]int) error {
	root, err := openDir(unix.AT_FDCWD, c.members.root)
	if err != nil {
		return fmt.Errorf("open %s: %w", c.members.root, err)
	}
	defer unix.Close(root)
	c.ignored.begin(time.Now())
	return eachEntry(root, c.buffers.root[:], func(inode uint64, name string) {
		pid, err := strconv.Atoi(name)
		if err != nil || c.ignored.has(pid, inode) {
			return
		}
		if c.members.member(root, name) {
			c.scanProcess(root, pid, name+"/fd", owners)
		} else if c.ignored.growing && !c.members.hasProgram(root, name) {
			c.ignored.add(pid, inode)
		}
	})
}

// ignored are processes that hold nothing and never will: the kernel's own, and
// what has ended. Asking each what it is takes most of a look where a machine
// has many. They are forgotten soon, and known by their directory's inode too, which a
// process that gets the number of an ended one does not share.
type ignored struct {
	known   map[ignoredKey]struct{}
	since   time.Time
	growing bool // looks follow each other closely enough for it to pay
}

type ignoredKey struct {
	pid   int
	inode uint64
}

const (
	ignoredFor = time.Second
	maxIgnored = 1 << 14
)

// begin begins a look.
func (a *ignored) begin(now time.Time) {
	if now.Sub(a.since) < ignoredFor {
		a.growing = true
		return
	}
	a.known, a.since, a.growing = map[ignoredKey]struct{}{}, now, false
}

func (a *ignored) has(pid int, inode uint64) bool {
	_, ok := a.known[ignoredKey{pid, inode}]
	return ok
}

func (a *ignored) add(pid int, inode uint64) {
	if len(a.known) < maxIgnored {
		a.known[ignoredKey{pid, inode}] = struct{}{}
	}
}

// scanProcess is scanProc for one process. One that has ended holds nothing.
func (c *socketScanner) scanProcess(root, pid int, dir string, owners map[uint64][]int) {
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
