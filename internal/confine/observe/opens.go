// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
)

// opens are the opened files: a group whose events come with a descriptor, by
// which the kernel itself tells the path. It works for every file system, but for
// regular files and directories only; specials are the rest.
type opens struct {
	fd        int // the group
	self      int // /proc/self/fd, O_PATH
	mounts    *mounts
	processes *processes
	seen      *seen
	options   *Options
	trigger   bool // the trigger file was opened
	ignored   int
	found     []Access
	link      []byte
}

const openMask = unix.FAN_OPEN | unix.FAN_OPEN_EXEC | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_ONDIR

// deletedSuffix is what the kernel adds to the path of a file that has no name
// any more (proc_pid_fd(5)).
const deletedSuffix = " (deleted)"

func newOpens(o *Observer) (_ *opens, err error) {
	s := &opens{
		fd: -1, self: -1, mounts: o.mounts, processes: o.processes, seen: o.seen,
		options: &o.options, link: make([]byte, 8192),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.fd, err = unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_MARKS,
		unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return nil, initError(err)
	}
	s.self, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return s, err
}

func initError(err error) error {
	if errors.Is(err, unix.EMFILE) {
		return errors.New("too many fanotify groups: raise the sysctl fs.fanotify.max_user_groups")
	}
	return os.NewSyscallError("fanotify_init", err)
}

func (s *opens) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	if s.self >= 0 {
		unix.Close(s.self)
	}
}

// mark watches a mount: that one only, so that nothing which others do with the
// same file system is seen.
func (s *opens) mark(m *mount) error {
	err := unix.FanotifyMark(s.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, openMask, unix.AT_FDCWD, linkTo(m.fd))
	return os.NewSyscallError("fanotify_mark", err)
}

// take takes an event in.
func (s *opens) take(e event) {
	if e.fd < 0 {
		return
	}
	defer unix.Close(e.fd)
	if e.pid == s.processes.self {
		return
	}
	s.processes.meet(e.pid)
	path := s.path(e.fd)
	if path == "" {
		return
	}
	if e.mask&unix.FAN_OPEN_EXEC != 0 {
		before := s.processes.execute(e.pid, path)
		if s.isHidden(before) {
			return // the launcher executes the workload, which it may
		}
	}
	if s.isHidden(path) {
		s.trigger = s.trigger || path == s.options.Trigger
		return
	}
	kinds := kindsOf(e.mask)
	if s.seen.has(path, kinds) || kinds == Read && s.seen.has(path, ReadDir) {
		s.ignore(e.fd, kinds) // what came again is likely to come a third time
		return
	}
	binary, ok := s.processes.workload(e.pid)
	if ok && s.isHidden(binary) {
		binary, ok = "", kinds&Execute != 0 // of an interpreter or loader, on the workload's behalf
	}
	if !ok {
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(e.fd, &st); err != nil {
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		kinds = ReadDir // an event with a descriptor does not tell
	}
	if cut, suffixed := strings.CutSuffix(path, deletedSuffix); suffixed && st.Nlink == 0 {
		path = cut
		// A file that never had a name (O_TMPFILE) is something done to its directory.
		if dir, name, _ := cutLast(path); name == "#"+strconv.FormatUint(st.Ino, 10) {
			path, kinds = dir, Write
		}
	}
	s.found = append(s.found, Access{Path: path, Kinds: kinds, PID: e.pid, Binary: binary})
}

func (s *opens) isHidden(path string) bool {
	if s.options.Hidden == "" {
		return false
	}
	_, hidden := abspath.Rel(path, s.options.Hidden)
	return hidden
}

// path returns the container's path of what a descriptor refers to, or "" where
// it has none.
func (s *opens) path(fd int) string {
	n, err := unix.Readlinkat(s.self, strconv.Itoa(fd), s.link)
	if err != nil || n == 0 || n == len(s.link) || s.link[0] != '/' {
		return ""
	}
	return string(s.link[:n])
}

// kindsOf tells what was done. An event may stand for several things done to one
// file in short time.
func kindsOf(mask uint64) Kind {
	var kinds Kind
	switch {
	case mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) != 0:
		kinds = Write
	case mask&unix.FAN_OPEN != 0:
		kinds = Read
	}
	if mask&unix.FAN_OPEN_EXEC != 0 {
		kinds |= Execute
	}
	return kinds
}

// maxIgnored is how many files the kernel is told to be silent about.
const maxIgnored = 1 << 17

// ignore makes the kernel keep silent about what is known of a file from now on,
// so that opening it again costs nothing. What is executed is told always:
// by that, processes are known. Files that may have another path are left alone.
// A kernel that cannot (before 6.0) says more than is needed.
func (s *opens) ignore(fd int, kinds Kind) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return
	}
	var mask uint64
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		mask = unix.FAN_OPEN | unix.FAN_ONDIR
	case st.Nlink != 1 || s.mounts.aliased[st.Dev]:
		return
	case kinds&Write != 0:
		mask = unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE
	default:
		mask = unix.FAN_OPEN
	}
	if s.ignored++; s.ignored > maxIgnored {
		s.ignored = 1
		_ = unix.FanotifyMark(s.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/") // of files, not of mounts
	}
	_ = unix.FanotifyMark(s.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV|unix.FAN_MARK_EVICTABLE, mask, fd, "")
}
