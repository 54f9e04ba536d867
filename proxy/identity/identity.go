// SPDX-License-Identifier: Apache-2.0

// Package identity finds out which process of a sandbox opened a connection:
// its executable, that executable's hash, and its ancestors. The answer comes
// from the kernel (sock_diag and /proc), never from the workload's word. What
// an identity may do is the policy's question.
package identity

import (
	"fmt"
	"net/netip"
	"slices"

	"openshell.ai/openshell/netns"
)

// Process is the identity of the process at the workload's end of a
// connection.
type Process struct {
	PID int
	// Path is that of the executable, as the container sees it, or what begins with no slash
	// where it is no file that the container shows: see name.go.
	Path      string
	SHA256    string   // of the executable, in lower-case hexadecimal
	Ancestors []string // executables of the ancestors inside the sandbox, nearest first
	// Aliases are how the executable and its ancestors' are called in their
	// containers, in that order, see Finder.Container: "" where that is not known.
	// It is nil where none is.
	Aliases []string
}

// Finder identifies the owners of one sandbox's connections. It is safe for
// concurrent use.
type Finder struct {
	// Container returns what tells the container from others in which a mount
	// namespace is, by its inode number; "" where there is none, or more than one.
	// Nil: there are no containers.
	Container func(mountNamespace uint64) string

	// Roots are the root file systems of the sandbox's containers. Nil: there are none.
	Roots func() []Root

	diag    *netns.Diag
	members procs
	userns  netns.ID // the containers', which has the inner network namespace
	sockets *socketScanner
	hashes  *hashes
}

// NewFinder returns a Finder for the connections of the inner namespace.
func NewFinder(inner *netns.Namespace) (*Finder, error) {
	userns, err := inner.UserNamespace()
	if err != nil {
		return nil, err
	}
	diag, err := netns.NewDiag(inner)
	if err != nil {
		return nil, err
	}
	members := procs{root: "/proc", netns: inner.ID()}
	return &Finder{diag: diag, members: members, userns: userns, sockets: newSocketScanner(members),
		hashes: newHashes()}, nil
}

// Close frees the Finder's socket.
func (f *Finder) Close() error { return f.diag.Close() }

// Identify returns the identity of the process that has the TCP connection
// from local to remote, as its own end names them. Where several processes
// hold the socket, they must all be the same program with the same ancestry:
// otherwise nobody can tell which of them is speaking.
func (f *Finder) Identify(local, remote netip.AddrPort) (Process, error) {
	inode, err := f.diag.TCPInode(local, remote)
	if err != nil {
		return Process{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	return f.owner([]uint64{inode})
}

// IdentifyDatagram is Identify for who sent a UDP datagram from local to remote.
// All the sockets that may have must be the same program's.
func (f *Finder) IdentifyDatagram(local, remote netip.AddrPort) (Process, error) {
	inodes, err := f.diag.UDPInodes(local, remote)
	if err != nil {
		return Process{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	return f.owner(inodes)
}

// maxLooks is how often a socket is looked for that nobody holds: a shell gives the
// one that it has just connected another number (dup2(2)), and may do so
// behind the back of a look at its descriptors.
const maxLooks = 4

func (f *Finder) holders(inode uint64) (r *scan, err error) {
	for range maxLooks {
		if r, err = f.sockets.lookup(inode); err != nil || len(r.owners[inode]) > 0 {
			break
		}
	}
	return r, err
}

// owner returns the identity of the processes that hold the sockets.
func (f *Finder) owner(inodes []uint64) (Process, error) {
	var owner Process
	inOne := true // container
	for _, inode := range inodes {
		round, err := f.holders(inode)
		if err != nil {
			return Process{}, fmt.Errorf("failed to resolve peer binary: %w", err)
		}
		pids := round.owners[inode]
		if len(pids) == 0 {
			return Process{}, fmt.Errorf("failed to resolve peer binary: no process of the sandbox holds socket %d", inode)
		}
		for _, pid := range pids {
			p, err := round.process(pid, f.identity)
			if err != nil {
				return Process{}, err
			}
			if owner.PID != 0 && !owner.sameProgram(p) {
				return Process{}, fmt.Errorf("ambiguous shared socket ownership: inode %d is held by %s (%d) and %s (%d)",
					inodes[0], owner.Path, owner.PID, p.Path, p.PID)
			}
			inOne = inOne && (owner.PID == 0 || owner.sameAliases(p))
			if owner.PID == 0 || p.PID < owner.PID {
				owner = p
			}
		}
	}
	if !inOne {
		owner.Aliases = nil
	}
	return owner, nil
}

// sameProgram tells whether p and q would be decided alike. A child forked
// without an exec has its parent as one more ancestor, of the same executable.
func (p Process) sameProgram(q Process) bool {
	return p.Path == q.Path && p.SHA256 == q.SHA256 &&
		slices.Equal(slices.Compact(append([]string{p.Path}, p.Ancestors...)),
			slices.Compact(append([]string{q.Path}, q.Ancestors...)))
}

// sameAliases reports whether programs for which sameProgram holds run in the same
// containers.
func (p Process) sameAliases(q Process) bool {
	return slices.Equal(slices.Compact(slices.Clone(p.Aliases)), slices.Compact(slices.Clone(q.Aliases)))
}

// Alias is what the program at a path is called in a container.
func Alias(container, path string) string { return container + "\x00" + path }

func (f *Finder) identity(pid int) (Process, error) {
	exe, err := f.executable(pid)
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Path: exe.path, SHA256: exe.sha256}
	all := []executable{exe}
	for _, ancestor := range f.members.ancestors(pid) {
		exe, err := f.executable(ancestor)
		if err != nil {
			return Process{}, err
		}
		p.Ancestors = append(p.Ancestors, exe.path)
		all = append(all, exe)
	}
	p.Aliases = f.aliases(all)
	return p, nil
}

func (f *Finder) aliases(programs []executable) []string {
	if f.Container == nil {
		return nil
	}
	aliases := make([]string, len(programs))
	known, container, in := false, "", uint64(0)
	for i, exe := range programs {
		if in != exe.mountNamespace {
			in = exe.mountNamespace
			container = f.Container(in)
		}
		if container != "" {
			aliases[i], known = Alias(container, exe.path), true
		}
	}
	if !known {
		return nil
	}
	return aliases
}
