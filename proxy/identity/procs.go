// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/netns"
)

// maxAncestors bounds the walk up the process tree.
const maxAncestors = 64

// procs reads the processes of one sandbox from a proc(5) file system. A
// process belongs to it when it is in the sandbox's inner network namespace:
// that holds for processes the engine execs too, which are no descendants of
// the first one.
type procs struct {
	root  string
	netns netns.ID
}

// member tells whether a process is one, by its directory, which is relative to
// an open one.
func (p procs) member(at int, dir string) bool {
	var st unix.Stat_t
	if unix.Fstatat(at, dir+"/ns/net", &st, 0) != nil {
		return false // gone, or a zombie
	}
	return st.Dev == p.netns.Dev && st.Ino == p.netns.Ino
}

// hasProgram tells whether a process executes a file. The kernel's own do not, nor
// does what has ended: the link is there, and leads nowhere (proc_pid_exe(5)).
func (p procs) hasProgram(at int, dir string) bool {
	var one [1]byte
	_, err := unix.Readlinkat(at, dir+"/exe", one[:])
	return err != unix.ENOENT
}

// ancestors returns the parents of pid inside the sandbox, nearest first. The
// walk ends where the engine's processes begin.
func (p procs) ancestors(pid int) []int {
	var out []int
	for range maxAncestors {
		parent, err := p.parent(pid)
		if err != nil || parent <= 1 || !p.member(unix.AT_FDCWD, filepath.Join(p.root, strconv.Itoa(parent))) {
			break
		}
		out = append(out, parent)
		pid = parent
	}
	return out
}

func (p procs) parent(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", p.root, pid))
	if err != nil {
		return 0, err
	}
	return parseParent(b)
}

// parseParent reads the ppid field of proc_pid_stat(5). The command name
// before it may contain anything, parentheses and spaces included.
func parseParent(stat []byte) (int, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, fmt.Errorf("malformed stat line")
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("malformed stat line")
	}
	return strconv.Atoi(string(fields[1]))
}
