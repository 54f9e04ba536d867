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

// owners returns the members that have the socket open.
func (p procs) owners(inode uint64) ([]int, error) {
	want := fmt.Appendf(nil, "socket:[%d]", inode)
	pids, err := numericEntries(p.root)
	if err != nil {
		return nil, err
	}
	var owners []int
	for _, pid := range pids {
		if p.member(pid) && holds(filepath.Join(p.root, strconv.Itoa(pid), "fd"), want) {
			owners = append(owners, pid)
		}
	}
	return owners, nil
}

func (p procs) member(pid int) bool {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("%s/%d/ns/net", p.root, pid), &st) != nil {
		return false // gone, or a zombie
	}
	return st.Dev == p.netns.Dev && st.Ino == p.netns.Ino
}

// holds tells whether one of the descriptors in the directory links to want.
func holds(dir string, want []byte) bool {
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(d), dir)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return false
	}
	buf := make([]byte, 64)
	for _, name := range names {
		if n, err := unix.Readlinkat(d, name, buf); err == nil && bytes.Equal(buf[:n], want) {
			return true
		}
	}
	return false
}

// ancestors returns the parents of pid inside the sandbox, nearest first. The
// walk ends where the engine's processes begin.
func (p procs) ancestors(pid int) []int {
	var out []int
	for range maxAncestors {
		parent, err := p.parent(pid)
		if err != nil || parent <= 1 || !p.member(parent) {
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

func numericEntries(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
