// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	cgroupsv1 "github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/cgroups/systemd"
	"golang.org/x/sys/unix"
)

// A supervisor works on its workload's behalf: what it uses is accounted beside
// the workload, in a cgroup of its own, and bounded. A shim is accounted where
// containerd puts it.

// oomScore is the supervisor's, as Kubernetes has it for what a pod cannot do
// without: the kernel ends the workload first (proc_pid_oom_score_adj(5)).
const oomScore = -998

// account puts this process into the sandbox's cgroup. Where there can be none,
// the sandbox goes on without.
func (s *Sandbox) account() {
	if err := resistOOM(); err != nil {
		slog.Warn("a lack of memory may end the supervisor before the workload", "error", err)
	}
	// Its own collector works towards the configured size. What the kernel has for
	// its sockets and files comes on top.
	bound := int64(s.config.Supervisor.Memory) / 4 * 5
	if err := s.joinCgroup(bound); err != nil {
		slog.Warn("the supervisor has no cgroup of its own: what it uses is not accounted to the container", "error", err)
	}
}

func resistOOM() error {
	const path = "/proc/self/oom_score_adj"
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && now <= oomScore {
		return nil
	}
	return os.WriteFile(path, []byte(strconv.Itoa(oomScore)), 0)
}

// accounted are the cgroup v1 controllers that a supervisor is put under.
var accounted = []string{"memory", "cpu", "cpuacct", "blkio", "pids"}

func (s *Sandbox) joinCgroup(memory int64) error {
	path, err := besideCgroup(s.request.Cgroup, "openshell-"+s.request.ID)
	if err != nil {
		return err
	}
	own := &cgroups.Cgroup{Path: path, Resources: &cgroups.Resources{Memory: memory, SkipDevices: true}}
	m, err := manager.New(own)
	if err != nil {
		return err
	}
	paths := m.GetPaths()
	if !cgroups.IsCgroup2UnifiedMode() {
		for name := range paths {
			if !slices.Contains(accounted, name) {
				delete(paths, name)
			}
		}
		if m, err = cgroupsv1.NewManager(own, paths); err != nil {
			return err
		}
	}
	// First of all it is on record, for whoever clears up after a kill.
	err = s.updateInfo(func() {
		for _, path := range paths {
			if !slices.Contains(s.info.Cgroups, path) {
				s.info.Cgroups = append(s.info.Cgroups, path)
			}
		}
		slices.Sort(s.info.Cgroups)
	})
	if err != nil {
		return err
	}
	if err := m.Apply(os.Getpid()); err != nil {
		return err
	}
	return m.Set(own.Resources)
}

// besideCgroup returns the path of a cgroup with the same parent as a
// container's, which is written as in config.json: a path, one that is relative
// to this process's cgroup, or slice:prefix:name for systemd.
func besideCgroup(container, name string) (string, error) {
	if parts := strings.Split(container, ":"); len(parts) == 3 {
		slice, err := systemd.ExpandSlice(cmp.Or(parts[0], "system.slice"))
		if err != nil {
			return "", fmt.Errorf("linux.cgroupsPath: %w", err)
		}
		return filepath.Join("/", slice, name), nil
	}
	parent := filepath.Dir(filepath.Clean("/" + container))
	if filepath.IsAbs(container) {
		return filepath.Join(parent, name), nil
	}
	return strings.TrimPrefix(filepath.Join(parent, name), "/"), nil
}

// leaveCgroup takes this process out of the sandbox's cgroup, and removes that.
func (i Info) leaveCgroup() {
	for _, path := range i.Cgroups {
		// The root of the hierarchy takes anybody. It is this process's last act.
		pid := []byte(strconv.Itoa(os.Getpid()))
		err := os.WriteFile(filepath.Join(filepath.Dir(path), "cgroup.procs"), pid, 0)
		for root := filepath.Dir(path); err != nil && strings.HasPrefix(root, "/sys/fs/cgroup"); root = filepath.Dir(root) {
			err = os.WriteFile(filepath.Join(root, "cgroup.procs"), pid, 0)
		}
		if err != nil {
			slog.Warn("leave the cgroup", "error", err)
		}
	}
	if err := i.removeCgroup(); err != nil {
		slog.Warn("remove the cgroup", "error", err)
	}
}

// removeCgroup removes the cgroup of a supervisor that has ended, or has left it.
func (i Info) removeCgroup() error {
	var errs []error
	for _, path := range i.Cgroups {
		// Whatever the file says, nothing else is removed.
		if !strings.HasPrefix(filepath.Base(path), "openshell-") {
			continue
		}
		if err := unix.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}
