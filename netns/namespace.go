// SPDX-License-Identifier: Apache-2.0

// Package netns owns a sandbox's two network namespaces: the sealed inner one
// that the workload lives in, and the outer one that the proxy's upstream
// sockets start from. It opens and makes namespaces, listens and dials in
// them, keeps the interception rules of the inner one, and tells whose socket
// a connection is. What is done with an intercepted connection is decided
// elsewhere.
package netns

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ID identifies a network namespace for as long as anything holds it open: the
// device and inode of its nsfs file (namespaces(7)).
type ID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// Namespace is an open handle to a network namespace. The namespace lives at
// least as long as the handle; no mount and no name on disk keeps it, so
// nothing is left when the process that holds it dies.
type Namespace struct {
	file *os.File
	id   ID
}

// home is the namespace the process was started in. Threads are outside it
// only while they run the function given to Do.
var home = sync.OnceValues(func() (*Namespace, error) {
	return Open("/proc/thread-self/ns/net")
})

// Home returns the namespace this process was started in. The handle is
// shared: do not close it.
func Home() (*Namespace, error) { return home() }

// Open opens the namespace that path names, such as /proc/PID/ns/net or a
// bind mount made by a CNI plugin. A path that is not a network namespace is
// refused.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	ns, err := FromFile(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ns, nil
}

// FromFile takes over a file that is a network namespace. Where it fails, the file
// is still the caller's.
func FromFile(f *os.File) (*Namespace, error) {
	// The netlink libraries take descriptor 0, their zero value, to mean no
	// namespace, and would write the rules into this process's own. It is free
	// where the process has closed its standard input.
	if f.Fd() == 0 {
		return nil, fmt.Errorf("standard input is closed: its descriptor must not become a namespace's")
	}
	// NS_GET_NSTYPE, ioctl_nsfs(2).
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return nil, fmt.Errorf("not a network namespace")
	}
	id, err := fileID(f)
	if err != nil {
		return nil, err
	}
	return &Namespace{file: f, id: id}, nil
}

func fileID(f *os.File) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ID{}, fmt.Errorf("stat network namespace: %w", err)
	}
	return ID{Dev: st.Dev, Ino: st.Ino}, nil
}

// New makes a namespace that nothing else is in. It has a loopback device
// that is down, no address and no route.
func New() (*Namespace, error) {
	if _, err := home(); err != nil {
		return nil, err
	}
	var ns *Namespace
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		var err error
		ns, err = Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// ID returns the namespace's identity.
func (n *Namespace) ID() ID { return n.id }

// Fd returns the handle's descriptor, valid until Close.
func (n *Namespace) Fd() int { return int(n.file.Fd()) }

// File returns the handle's file, valid until Close.
func (n *Namespace) File() *os.File { return n.file }

// Path returns a path by which other processes of the same PID namespace can
// open the namespace while this process holds the handle (proc_pid_fd(5)).
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.Fd())
}

// Close drops the handle.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs f on an OS thread that is in the namespace. Sockets that f opens
// stay in the namespace afterwards. f must not start goroutines that count on
// being in it: they run on other threads.
func (n *Namespace) Do(f func() error) error {
	h, err := home()
	if err != nil {
		return err
	}
	if h.id == n.id {
		return f()
	}
	return onThread(func() error {
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a locked OS thread of its own goroutine and brings the
// thread back to the home namespace. A thread that cannot be brought back is
// left locked, so that the Go runtime ends it with its goroutine instead of
// reusing it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := f()
		h, herr := home()
		if herr == nil && unix.Setns(h.Fd(), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
