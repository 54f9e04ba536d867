// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/sandbox"
)

// exec confines a process that joins a running container like its first one.
func (r *Runtime) exec(inv Invocation) (int, error) {
	// Nothing can be confined yet: openshell-init would find nothing to go by.
	if sandbox.Pending(r.config.RunDir, r.root(inv), inv.ID) {
		return 1, fmt.Errorf("exec: container %s is created, but not started: its network and its confinement are complete with the start",
			inv.ID)
	}
	if inv.Process == "" {
		if inv.idAt == len(inv.Args)-1 {
			return r.replace(inv.Args) // no command: the low-level runtime says so
		}
		return r.replace(inv.withPrefix(givesDropped, launcher, "--"))
	}
	data, err := fileio.ReadFile(inv.Process, maxSpec)
	if err != nil {
		return 1, fmt.Errorf("read process: %w", err)
	}
	confined, err := ConfineProcess(sandbox.Container{ID: inv.ID, Root: r.root(inv)}.RootDirectory(), data)
	if err != nil {
		return 1, err
	}
	path, err := inherited(confined, inv.Preserved)
	if err != nil {
		return 1, err
	}
	return r.replace(inv.withProcess(path))
}

// givesDropped reports whether a value of --cap would give a dropped capability
// back. Some command line libraries take a list for such a flag.
func givesDropped(capabilities string) bool {
	return slices.ContainsFunc(strings.Split(capabilities, ","), isDropped)
}

// firstFree is above the descriptors that a runtime hands on to a container:
// standard streams, LISTEN_FDS and --preserve-fds.
const firstFree = 100

// inherited puts content into a file in memory that the low-level runtime
// inherits and that is gone with it.
func inherited(content []byte, preserved int) (path string, err error) {
	fd, err := unix.MemfdCreate("process.json", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	f := os.NewFile(uintptr(fd), "process.json")
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	high, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, firstFree+preserved) // not close-on-exec
	if err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", high), nil
}
