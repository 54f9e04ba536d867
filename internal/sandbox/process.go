// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/rootfs"
)

// process is a process that is watched by its pidfd (pidfd_open(2)): unlike its
// number, that cannot come to mean another one.
type process struct{ file *os.File }

// openProcess opens a process. Being non-blocking, the descriptor is left to
// Go's poller: waiting holds no thread, and ends when the file is closed.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return &process{os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (p *process) close() { p.file.Close() }

// ended waits for the process's end, for so long; for ever where that is 0. It
// returns false, too, when the process is closed meanwhile.
func (p *process) ended(within time.Duration) bool {
	var deadline time.Time
	if within > 0 {
		deadline = time.Now().Add(within)
	}
	if p.file.SetReadDeadline(deadline) != nil {
		return false
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	})
	return err == nil
}

// lives reports whether the process has not ended.
func (p *process) lives() bool {
	lives := false
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		lives = err == nil && n == 0
	})
	return err == nil && lives
}

func (p *process) kill() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var kerr error
	if err := raw.Control(func(fd uintptr) { kerr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(kerr, unix.ESRCH) {
		return nil // it is gone
	}
	return os.NewSyscallError("pidfd_send_signal", kerr)
}

// errNotRunning says that a container has no first process: it was not created,
// or has ended.
var errNotRunning = errors.New("the container does not run")

// init returns the pid of the container's first process, from the low-level
// runtime's state. Both runc and crun are understood.
func (c Container) init() (int, error) {
	dir := filepath.Join(c.Root, c.ID)
	var runc struct {
		PID       int    `json:"init_process_pid"`
		StartTime uint64 `json:"init_process_start"`
	}
	err := readState(filepath.Join(dir, "state.json"), &runc)
	if !errors.Is(err, fs.ErrNotExist) {
		return running(runc.PID, runc.StartTime, err)
	}
	var crun struct {
		PID       int    `json:"pid"`
		StartTime uint64 `json:"process-start-time"`
	}
	err = readState(filepath.Join(dir, "status"), &crun)
	return running(crun.PID, crun.StartTime, err)
}

// RootDirectory is the root directory of a running container, with all that is
// mounted there, and the zero value where it does not run.
func (c Container) RootDirectory() rootfs.Location {
	pid, err := c.init()
	if err != nil {
		return rootfs.Location{}
	}
	return rootfs.OfProcess(pid)
}

// readState reads no more of a runtime's state than is named: the rest differs
// from version to version.
func readState(path string, state any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, state)
}

// running returns the pid if its process is the one that started then.
func running(pid int, startTime uint64, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	if !alive(pid, startTime) {
		return 0, errNotRunning
	}
	return pid, nil
}

// refTo names the process that has a pid now.
func refTo(pid int) (ProcessRef, error) {
	stat, err := system.Stat(pid)
	if err != nil {
		return ProcessRef{}, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return ProcessRef{PID: pid, StartTime: stat.StartTime}, nil
}

// alive reports whether the process has not ended.
func (p ProcessRef) alive() bool { return alive(p.PID, p.StartTime) }

// alive reports whether the process of a pid is the one that started then, in
// clock ticks since boot (proc_pid_stat(5)), and has not ended.
func alive(pid int, startTime uint64) bool {
	stat, err := system.Stat(pid)
	if err != nil || stat.StartTime != startTime {
		return false
	}
	return stat.State != system.Zombie && stat.State != system.Dead || executing(pid)
}

// executing reports whether a process that looks dead is about to execute another program: while one of its
// other threads takes the first one's place, that is a zombie (execve(2), "Effect on process threads").
func executing(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	threads, zombie := 0, true
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "State":
			zombie = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
		case "Threads":
			threads, _ = strconv.Atoi(value)
		}
	}
	return !zombie || threads > 1
}

func (c Container) running() bool {
	_, err := c.init()
	return err == nil
}

// openInit opens the container's first process, and no other that got its pid.
func (c Container) openInit() (*process, int, error) {
	pid, err := c.init()
	if err != nil {
		return nil, 0, err
	}
	p, err := openProcess(pid)
	if err != nil {
		return nil, 0, err
	}
	if again, err := c.init(); err != nil || again != pid {
		p.close()
		return nil, 0, errNotRunning
	}
	return p, pid, nil
}

// awaitInit waits until the container has a first process. When its creator has
// ended and there is none, making it failed.
func (c Container) awaitInit(ctx context.Context, creator *process) (*process, int, error) {
	defer context.AfterFunc(ctx, creator.close)()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		ended := creator.ended(wait)
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		if init, pid, err := c.openInit(); err == nil || ended {
			return init, pid, err
		}
	}
}

// kill ends the container's first process.
func (c Container) kill() error {
	p, _, err := c.openInit()
	if err != nil {
		return nil // it is gone
	}
	defer p.close()
	return p.kill()
}
