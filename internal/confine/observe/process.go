// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProcesses is how many processes are remembered.
const maxProcesses = 4096

// process is what is known of a process of the workload.
type process struct {
	executed string // the file that it executed last
	binary   string // what it is, once asked for
}

// processes tells the workload's processes from others, such as the runtime's
// that has not become the workload yet.
type processes struct {
	mounts *mounts
	self   int
	known  map[int]process
}

func newProcesses(m *mounts) *processes {
	return &processes{mounts: m, self: os.Getpid(), known: map[int]process{}}
}

// execute takes in that a process has opened a file to execute it. The name
// outlives a process that has ended by the time it is asked for.
// It returns the file that was executed before.
func (p *processes) execute(pid int, file string) (before string) {
	before = p.known[pid].executed
	// The loader is opened last, but not what the process then is known by (ld.so(8)).
	if strings.HasPrefix(path.Base(file), "ld-") {
		file = before
	}
	p.remember(pid, process{executed: file})
	return before
}

func (p *processes) remember(pid int, proc process) {
	if len(p.known) >= maxProcesses {
		clear(p.known)
	}
	p.known[pid] = proc
}

// meet takes in that a process has opened a file through one of the container's
// own mounts.
func (p *processes) meet(pid int) {
	if _, known := p.known[pid]; !known {
		p.remember(pid, process{})
	}
}

// workload returns the executable of a process whose access came through one of
// the container's own mounts, "" where it has ended and is not known. It returns
// false where the process is not the workload's.
func (p *processes) workload(pid int) (binary string, ok bool) {
	if pid == p.self {
		return "", false
	}
	proc := p.known[pid]
	if proc.binary != "" {
		return proc.binary, true
	}
	alive, member, binary := p.look(pid)
	switch {
	case !alive:
		return proc.executed, true
	case !member:
		return "", false
	}
	// Between the open and its execution a process still is what it was.
	if proc.executed == "" || proc.executed == binary {
		proc.binary = binary
		p.remember(pid, proc)
	}
	return binary, true
}

// member is workload for accesses that others may make too: a process that has
// ended must have been seen before.
func (p *processes) member(pid int) (binary string, ok bool) {
	if _, known := p.known[pid]; !known && pid != p.self {
		_, member, binary := p.look(pid)
		return binary, member
	}
	return p.workload(pid)
}

// look finds out what a process is that is alive.
func (p *processes) look(pid int) (alive, member bool, binary string) {
	ns, err := os.Readlink(procPath(pid, "ns/mnt"))
	if err != nil {
		return false, false, ""
	}
	exe := procPath(pid, "exe")
	binary, err = os.Readlink(exe)
	if err != nil {
		return false, false, ""
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, exe, 0, unix.STATX_MNT_ID, &st); err != nil {
		return false, false, ""
	}
	// The runtime's own program, before it executes the workload's, is a file of
	// the host's or a copy in memory. The workload may execute one in memory too.
	inside := p.mounts.has(st.Mnt_id) || strings.HasPrefix(binary, "/memfd:") && !strings.HasPrefix(binary, "/memfd:runc")
	return true, ns == p.mounts.ns && inside, strings.TrimSuffix(binary, deletedSuffix)
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
