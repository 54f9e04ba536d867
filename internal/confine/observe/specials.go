// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// specials are the devices and FIFOs of a container. A group whose events come
// with a descriptor is never told of them (fanotify_group_event_mask in the
// kernel's fs/notify/fanotify/fanotify.c); the one of entries is. They are marked
// one by one: a mark of their mount would tell it of every other file too.
//
// Those are known that are on a file system in memory, such as /dev, and those
// that are mounted by themselves. Others, which an image or a directory of the
// host's may hold among its files, would take a walk through all of these.
type specials struct {
	fd        int // the group of entries
	mounts    *mounts
	processes *processes
	hidden    func(string) bool
	lose      func(reason string)
	trees     []tree
	maxWalked int // files of a tree
	known     map[handle]special
}

// special is one of them.
type special struct {
	path  string // in the container: one of its paths, for Landlock knows it by its inode
	flags uint   // of its mark
	// private says that whoever opens it is the container's.
	private bool
}

// tree is a file system in memory that is looked through.
type tree struct {
	fd      int // its directory, O_PATH
	point   string
	private bool
}

const (
	specialMask = unix.FAN_OPEN | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE

	maxSpecials = 4096 // are known
	maxTrees    = 64   // are looked through
)

// small are file systems in memory, which are read in no time.
var small = map[string]bool{"tmpfs": true, "devtmpfs": true, "ramfs": true}

func newSpecials(fd int, o *Observer) *specials {
	return &specials{
		fd: fd, mounts: o.mounts, processes: o.processes, hidden: o.opens.isHidden, lose: o.lose,
		maxWalked: 1 << 15, known: map[handle]special{},
	}
}

func (s *specials) close() {
	for _, t := range s.trees {
		unix.Close(t.fd)
	}
}

// mark watches what there is of them on a mount.
func (s *specials) mark(m *mount, private bool) {
	if m.directory {
		if small[m.fstype] && m.point != "/" {
			s.told(m.point, s.markTree(m, private))
		}
		return
	}
	if m.fstype == "devpts" {
		return // the terminal, as /dev/console
	}
	// By its mount, for the host's may be in use by others all the time.
	s.told(m.point, s.add(m.fd, special{path: m.point, flags: unix.FAN_MARK_MOUNT, private: true}))
}

func (s *specials) markTree(m *mount, private bool) error {
	if len(s.trees) == maxTrees {
		return fmt.Errorf("at most %d file systems are looked through", maxTrees)
	}
	fd, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	t := tree{fd: fd, point: m.point, private: private}
	s.trees = append(s.trees, t)
	return s.walk(t)
}

// remark watches what has been made since a tree was looked through.
func (s *specials) remark() {
	for _, t := range s.trees {
		s.told(t.point, s.walk(t))
	}
}

func (s *specials) told(where string, err error) {
	if err != nil {
		s.lose(fmt.Sprintf("devices and FIFOs at %q: %v", where, err))
	}
}

// walk watches all on a tree's file system, what is near to its top first.
func (s *specials) walk(t tree) (err error) {
	budget := s.maxWalked
	for dirs := []string{"."}; len(dirs) > 0 && budget > 0; dirs = dirs[1:] {
		dir := dirs[0]
		fd, openErr := openBelow(t.fd, dir, unix.O_RDONLY|unix.O_DIRECTORY)
		if openErr != nil {
			continue // it has gone
		}
		f := os.NewFile(uintptr(fd), dir)
		for budget > 0 {
			list, readErr := f.ReadDir(256)
			for _, e := range list {
				if e.IsDir() {
					dirs = append(dirs, path.Join(dir, e.Name()))
				} else if isSpecial(e.Type()) {
					err = cmp.Or(err, s.addBelow(t, dir, fd, e.Name()))
				}
			}
			budget -= len(list)
			if readErr != nil {
				if readErr != io.EOF {
					err = cmp.Or(err, readErr)
				}
				break
			}
		}
		f.Close()
	}
	if budget <= 0 {
		err = cmp.Or(err, fmt.Errorf("only %d files were looked at", s.maxWalked))
	}
	return err
}

func (s *specials) addBelow(t tree, dir string, dirfd int, name string) error {
	fd, err := openBelow(dirfd, name, unix.O_PATH)
	if err != nil {
		return nil // it has gone, or something is mounted there
	}
	defer unix.Close(fd)
	return s.add(fd, special{path: path.Join(t.point, dir, name), private: t.private})
}

// created watches one that was made by somebody else than the workload, whose own
// are covered by their directory.
func (s *specials) created(p string, private bool) {
	fd, err := s.mounts.lookup(p)
	if err != nil {
		return // it has gone
	}
	defer unix.Close(fd)
	s.told(path.Dir(p), s.add(fd, special{path: p, private: private}))
}

// add watches one, if it is one.
func (s *specials) add(fd int, sp special) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
	default:
		return nil
	}
	h, err := handleOf(fd)
	if err != nil {
		return err
	}
	if _, ok := s.known[h]; ok {
		return nil
	}
	if len(s.known) == maxSpecials {
		return fmt.Errorf("at most %d devices and FIFOs are watched", maxSpecials)
	}
	if err := unix.FanotifyMark(s.fd, unix.FAN_MARK_ADD|sp.flags, specialMask, unix.AT_FDCWD, linkTo(fd)); err != nil {
		return os.NewSyscallError("fanotify_mark", err)
	}
	s.known[h] = sp
	return nil
}

// take returns what a process of the workload did, if the event is of that.
func (s *specials) take(e event) (a Access, ok bool) {
	if e.mask&specialMask == 0 {
		return a, false
	}
	sp, ok := s.known[e.child]
	if !ok {
		return a, false
	}
	decide := s.processes.member
	if sp.private {
		decide = s.processes.workload
	}
	binary, ok := decide(e.pid)
	if !ok || s.hidden(binary) {
		return a, false
	}
	kinds := kindsOf(e.mask)
	if kinds&Write == 0 && hasWritable(e.pid, sp.path) {
		kinds |= Write
	}
	s.silence(e.child, sp, kinds)
	return Access{Path: sp.path, Kinds: kinds, PID: e.pid, Binary: binary}, true
}

// maxDescriptors is how many of a process are looked at.
const maxDescriptors = 1024

// hasWritable reports whether a process has a file open for writing: its mode has no
// event, and a device that is used by ioctl(2) alone has none of a write either
// until it is closed. It only reads links, for a stat of what else the process has
// may wait for a file server.
func hasWritable(pid int, file string) bool {
	dir, err := os.Open(procPath(pid, "fd"))
	if err != nil {
		return false // it has ended, and closed what it had
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxDescriptors)
	for _, name := range names {
		if link, err := os.Readlink(path.Join(dir.Name(), name)); err != nil || link != file {
			continue
		}
		info, err := os.ReadFile(procPath(pid, "fdinfo/"+name))
		if err != nil {
			continue
		}
		var pos int64
		var flags int
		_, err = fmt.Sscanf(string(info), "pos:\t%d\nflags:\t%o\n", &pos, &flags)
		if err == nil && flags&unix.O_PATH == 0 && flags&unix.O_ACCMODE != unix.O_RDONLY {
			return true
		}
	}
	return false
}

// silence makes the kernel tell no more of what is known now: each write to a
// device would be an event.
func (s *specials) silence(h handle, sp special, kinds Kind) {
	fd, err := s.mounts.lookup(sp.path)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if at, err := handleOf(fd); err != nil || at != h {
		return
	}
	mask := uint64(unix.FAN_OPEN)
	if kinds&Write != 0 {
		mask = specialMask
	}
	_ = unix.FanotifyMark(s.fd, unix.FAN_MARK_REMOVE|sp.flags, mask, unix.AT_FDCWD, linkTo(fd))
}

// openBelow opens what is in a directory, on the same mount.
func openBelow(dirfd int, name string, flags uint64) (int, error) {
	return unix.Openat2(dirfd, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func isSpecial(t fs.FileMode) bool { return t&(fs.ModeDevice|fs.ModeNamedPipe) != 0 }
