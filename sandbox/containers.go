package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/state"
)

// Attach makes a container part of the sandbox for as long as its first
// process lives. creator is the process that makes it: when that has ended and
// there is no container, making it failed.
func (s *Sandbox) Attach(c Container, creator int) error {
	fd, err := unix.PidfdOpen(creator, 0)
	if err != nil {
		return fmt.Errorf("watch the container's creator: %w", err)
	}
	err = s.updateInfo(func(i *Info) { i.Containers = append(i.Containers, c) })
	if err != nil {
		unix.Close(fd)
		return err
	}
	go s.watch(c, fd)
	return nil
}

// Detach takes a deleted container out of the sandbox, which ends with its
// last.
func (s *Sandbox) Detach(root, id string) {
	s.gone(func(c Container) bool { return c.Root == root && c.ID == id })
}

func (s *Sandbox) gone(which func(Container) bool) {
	empty := false
	err := s.updateInfo(func(i *Info) {
		i.Containers = slices.DeleteFunc(i.Containers, which)
		empty = len(i.Containers) == 0
	})
	if err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	if empty {
		go s.Stop()
	}
}

// watch follows a container from before it exists to its end.
func (s *Sandbox) watch(c Container, creator int) {
	pid, err := c.awaitInit(creator)
	unix.Close(creator)
	if err == nil {
		_ = s.updateInfo(func(i *Info) {
			for n := range i.Containers {
				if i.Containers[n].Root == c.Root && i.Containers[n].ID == c.ID {
					i.Containers[n].PID = pid
				}
			}
		})
		awaitExit(pid)
	}
	s.Detach(c.Root, c.ID)
}

// errNotCreated says that the creator ended and left no container.
var errNotCreated = errors.New("the container was not created")

// awaitInit returns the pid of the container's first process.
func (c Container) awaitInit(creator int) (int, error) {
	wait := 5 * time.Millisecond
	for {
		ended := exited(creator, wait)
		pid, _, err := c.init()
		if err == nil {
			return pid, nil
		}
		if ended {
			return 0, errNotCreated
		}
		wait = min(2*wait, 200*time.Millisecond)
	}
}

// exited waits for a process, at most for the time given.
func exited(pidfd int, wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds()))
	return err == nil && n == 1
}

func awaitExit(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it is gone
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// init reads the container's first process from the low-level runtime's state.
// Both runc and crun are understood.
func (c Container) init() (pid int, startTime uint64, err error) {
	data, err := os.ReadFile(filepath.Join(c.Root, c.ID, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c.initCrun()
	}
	if err != nil {
		return 0, 0, err
	}
	var st libcontainer.BaseState
	if err := json.Unmarshal(data, &st); err != nil {
		return 0, 0, err
	}
	return running(st.InitProcessPid, st.InitProcessStartTime)
}

func (c Container) initCrun() (int, uint64, error) {
	data, err := os.ReadFile(filepath.Join(c.Root, c.ID, "status"))
	if err != nil {
		return 0, 0, err
	}
	var st struct {
		PID       int    `json:"pid"`
		StartTime uint64 `json:"process-start-time"`
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return 0, 0, err
	}
	return running(st.PID, st.StartTime)
}

// running tells whether the process of that pid is the one that started then.
func running(pid int, startTime uint64) (int, uint64, error) {
	stat, err := system.Stat(pid)
	if err != nil {
		return 0, 0, err
	}
	if stat.StartTime != startTime || stat.State == system.Zombie || stat.State == system.Dead {
		return 0, 0, errNotCreated
	}
	return pid, startTime, nil
}

// kill sends SIGKILL to the container's first process, and to no other that
// got its pid.
func (c Container) kill() error {
	pid, _, err := c.init()
	if err != nil {
		return nil // it is gone
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if again, _, err := c.init(); err != nil || again != pid {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// updateInfo changes what sandbox.json says. The run directory does not
// outlive a boot, so that the file need not reach the disk.
func (s *Sandbox) updateInfo(change func(*Info)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.info)
	if s.ctx.Err() != nil {
		return nil
	}
	data, err := json.MarshalIndent(s.info, "", "  ")
	if err != nil {
		return fmt.Errorf("write sandbox.json: %w", err)
	}
	if err := state.ReplaceFile(filepath.Join(s.dir, infoFile), data, 0o600); err != nil {
		return fmt.Errorf("write sandbox.json: %w", err)
	}
	return nil
}

// removeStubs removes the mount points that were made in root file systems,
// deepest first, where nothing else uses them.
func (s *Sandbox) removeStubs() { s.request.Container.removeStubs() }

func (c Container) removeStubs() {
	for _, stub := range slices.Backward(c.Stubs) {
		_ = unix.Rmdir(stub) // not empty, or gone with its root file system
	}
}

// refuseExecs takes the confinement away, without which openshell-init refuses
// to start anything.
func (s *Sandbox) refuseExecs() {
	_ = os.Remove(filepath.Join(s.confineDir(), confine.ConfigName))
}
