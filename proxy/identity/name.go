// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/netns"
)

// What a rule calls a program is the path at which the container shows the file that
// the process executes. The kernel tells the path by which the file was executed
// (proc_pid_exe(5)), and that alone proves nothing: a file in memory has a name of its
// maker's choice, one that was removed has left its name to others, and a process that
// may mount has paths of its own. So the path is looked up. Where it shows another
// file, the process has one of these and no path, which no rule for programs
// matches.
const (
	anonymousFile = "anonymous:" // was never in a directory
	removedFile   = "removed:"   // is no longer where it was
	otherFile     = "other:"     // is not what the container has at this path
)

const (
	deletedMark   = " (deleted)" // of proc_pid_exe(5)
	anonymousMark = "/memfd:"    // of memfd_create(2)
)

// Root is a container's root file system.
type Root struct {
	// PID is the container's first process, 0 where it is not known.
	PID int
	// Image is the root file system without what is mounted into it.
	Image rootfs.Location
}

// executable is what a process executes.
type executable struct {
	path, sha256   string
	mountNamespace uint64
}

// running is what the kernel says of a process's executable.
type running struct {
	dir            string // the process's
	link           string
	file           unix.Stat_t
	mountNamespace uint64
	sha256         string
}

// sighting is a file that was found at its path, by a process of a mount namespace.
type sighting struct {
	file           fingerprint
	path           string
	mountNamespace uint64
}

// executable finds out what a process executes, and what that is called.
func (f *Finder) executable(pid int) (executable, error) {
	e, in, err := f.named(f.members.root + "/" + strconv.Itoa(pid))
	if err != nil {
		return executable{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	if isPath(e.path) {
		err = f.hashes.verify(location{in, e.path}, e.sha256)
	}
	return e, err
}

// named returns what the process of a directory executes, and in which mount
// namespace that has its path.
func (f *Finder) named(dir string) (executable, uint64, error) {
	p, err := f.look(dir)
	for range maxLooks {
		if err != nil {
			return executable{}, 0, err
		}
		path, in, err := f.nameOf(p)
		e := executable{path, p.sha256, p.mountNamespace}
		if err != nil || isPath(path) {
			return e, in, err
		}
		// It has no name, if it did not execute another program meanwhile.
		again, err := f.look(dir)
		if err != nil || again.link == p.link && fingerprintOf(&again.file) == fingerprintOf(&p.file) {
			return e, 0, err
		}
		p = again
	}
	return executable{}, 0, errChanged
}

func isPath(name string) bool { return strings.HasPrefix(name, "/") }

func (f *Finder) look(dir string) (p running, err error) {
	p.dir = dir
	if p.link, err = os.Readlink(dir + "/exe"); err != nil {
		return p, err
	}
	if err := unix.Stat(dir+"/exe", &p.file); err != nil {
		return p, err
	}
	var ns unix.Stat_t
	if err := unix.Stat(dir+"/ns/mnt", &ns); err != nil {
		return p, err
	}
	p.mountNamespace = ns.Ino
	if p.sha256, err = f.hashes.sum(dir+"/exe", &p.file); err != nil {
		return p, fmt.Errorf("hash %s: %w", p.link, err)
	}
	return p, nil
}

// nameOf returns how an executable is called, and in which mount namespace it is
// called so.
func (f *Finder) nameOf(p running) (path string, in uint64, err error) {
	seen := sighting{fingerprintOf(&p.file), p.link, p.mountNamespace}
	if in, ok := f.hashes.sighted(seen); ok {
		return p.link, in, nil
	}
	path, deleted := strings.CutSuffix(p.link, deletedMark)
	if p.file.Nlink == 0 && strings.HasPrefix(p.link, anonymousMark) {
		return anonymousFile + strings.TrimPrefix(path, anonymousMark), 0, nil
	}
	roots, err := f.rootsFor(p)
	if err != nil {
		return "", 0, err
	}
	defer closeRoots(roots)
	for _, r := range roots {
		if f.shows(r.root, p.link, p) {
			f.hashes.sight(seen, r.mountNamespace)
			return p.link, r.mountNamespace, nil
		}
	}
	if !deleted {
		if onHost(p.dir + "/exe") {
			return p.link, p.mountNamespace, nil
		}
		return otherFile + p.link, 0, nil
	}
	// Packages are upgraded while their programs run. One that was seen at its path keeps it, and one whose
	// successor is equal.
	for _, r := range roots {
		if f.hashes.trusted(location{r.mountNamespace, path}, p.sha256) || f.shows(r.root, path, p) {
			return path, r.mountNamespace, nil
		}
	}
	return removedFile + path, 0, nil
}

// shows reports whether a root file system has the file of a process, or an equal one,
// at a path.
func (f *Finder) shows(root *rootfs.Root, path string, p running) bool {
	file, err := root.Lstat(path)
	if err != nil || !file.IsRegular() {
		return false
	}
	if file.ID == (rootfs.ID{Dev: p.file.Dev, Ino: p.file.Ino}) {
		return true
	}
	if file.Size != p.file.Size {
		return false
	}
	other, _, err := root.OpenFile(path)
	if err != nil {
		return false
	}
	defer other.Close()
	key, err := fingerprintOfOpen(other)
	if err != nil || key.size != p.file.Size {
		return false
	}
	sum, err := f.hashes.sumOf(other, key)
	return err == nil && sum == p.sha256
}

// openRoot is what a container shows, and its mount namespace: 0 where that is not known.
type openRoot struct {
	root           *rootfs.Root
	mountNamespace uint64
}

func closeRoots(roots []openRoot) {
	for _, r := range roots {
		r.root.Close()
	}
}

// rootsFor opens the root file systems by which the executable of a process may be
// called: its container's, or where it is in a mount namespace of its own, which may be any
// container's, those of all.
func (f *Finder) rootsFor(p running) (roots []openRoot, err error) {
	own, err := f.inContainers(p.dir)
	if err != nil {
		return nil, err
	}
	if own {
		root, err := rootfs.At(p.dir + "/root").OpenTop()
		return []openRoot{{root, p.mountNamespace}}, err
	}
	if f.Roots == nil {
		return nil, nil
	}
	for _, r := range f.Roots() {
		if opened, err := f.open(r); err == nil {
			roots = append(roots, opened)
		}
	}
	return roots, nil
}

// open opens a root file system, with what is mounted into it if the first process is
// where it began.
func (f *Finder) open(r Root) (openRoot, error) {
	dir := f.members.root + "/" + strconv.Itoa(r.PID)
	if own, err := f.inContainers(dir); r.PID == 0 || err != nil || !own {
		root, err := r.Image.Open()
		return openRoot{root, 0}, err
	}
	root, err := rootfs.At(dir + "/root").OpenTop()
	if err != nil {
		return openRoot{}, err
	}
	// It may have left meanwhile, and does not come back.
	var ns unix.Stat_t
	own, err := f.inContainers(dir)
	if err == nil {
		err = unix.Stat(dir+"/ns/mnt", &ns)
	}
	if err != nil || !own {
		root.Close()
		return openRoot{}, errChanged
	}
	return openRoot{root, ns.Ino}, nil
}

// inContainers reports whether a process is in a mount namespace of its container's:
// one that the low-level runtime made. What the workload makes belongs to a user namespace
// of its own.
func (f *Finder) inContainers(dir string) (bool, error) {
	ns, err := os.Open(dir + "/ns/mnt")
	if err != nil {
		return false, err
	}
	defer ns.Close()
	owner, err := netns.UserNamespaceOf(ns)
	return owner == f.userns, err
}

// onHost reports whether an executable is in a mount of this process's own mount
// namespace, so that its path is the host's: as an emulator's is that the kernel has kept
// open for other architectures (the flag F of binfmt_misc).
func onHost(exe string) bool {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, exe, 0, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return false
	}
	mounts, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return false
	}
	defer mounts.Close()
	prefix := strconv.FormatUint(st.Mnt_id, 10) + " "
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), prefix) {
			return true
		}
	}
	return false
}
