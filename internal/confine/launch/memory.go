// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// errTooMuch says that a path must not be granted for writing. Landlock grants
// whatever is below a directory, through other mounts too, and /proc/PID/mem is the
// memory of another process: whoever writes there acts as another program.
var errTooMuch = errors.New("must not be granted for writing: grant it read-only")

// checkWritable returns errTooMuch where write access to what fd refers to, and
// whatever is below, would be access to other processes' memory, or to all files.
func (s *rulesetFD) checkWritable(fd int) error {
	var st, root unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Stat("/", &root), unix.Fstatfs(fd, &fs)); err != nil {
		return err
	}
	directory := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Dev == root.Dev && st.Ino == root.Ino {
		return fmt.Errorf("it is the root directory, which %w", errTooMuch)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC && !directory {
		return nil
	}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return fmt.Errorf("find where it leads: %w: mount proc at /proc", err)
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		if hasMemory(fd, directory, at) {
			return fmt.Errorf("it leads to the memory of processes at %s, which %w", at, errTooMuch)
		}
		return nil
	}
	if s.procs == nil {
		if s.procs, err = readProcMounts(); err != nil {
			return err
		}
	}
	for _, point := range s.procs {
		if strings.HasPrefix(point, strings.TrimSuffix(at, "/")+"/") {
			return fmt.Errorf("the memory of processes is below it, at %s, so that it %w", point, errTooMuch)
		}
	}
	return nil
}

// hasMemory reports whether a file of a proc file system is the memory of a
// process, or a directory with such files below it: the root, a process's or a
// thread's directory, or that of the threads.
func hasMemory(fd int, directory bool, at string) bool {
	if !directory {
		return path.Base(at) == "mem"
	}
	has := func(name string) bool {
		var st unix.Stat_t
		return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}
	return has("self") || has("mem") || path.Base(at) == "task"
}

// readProcMounts returns where processes' files are mounted. There is one such place
// at least: /proc has shown where a descriptor leads.
func readProcMounts() ([]string, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !hasProcesses(m), false })
	if err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	points := make([]string, len(all))
	for i, m := range all {
		points[i] = m.Mountpoint
	}
	return points, nil
}

// hasProcesses reports whether a mount is of a proc file system, and not of a part
// of it without processes, such as /proc/sys.
func hasProcesses(m *mountinfo.Info) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(m.Root, "/"), "/")
	_, err := strconv.ParseUint(top, 10, 32)
	return m.FSType == "proc" && (top == "" || err == nil)
}
