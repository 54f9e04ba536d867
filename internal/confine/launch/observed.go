// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// observerWait bounds how long the workload is kept waiting for its observer.
const observerWait = 10 * time.Second

// ObservedName is the file in the launcher's directory that says that a container
// is observed. Containers that share the directory have mounts of their own of it.
func ObservedName(mount uint64) string { return fmt.Sprintf("observed-%d", mount) }

// mountID returns the id of the mount that a descriptor is on (statx(2)).
func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, os.NewSyscallError("statx", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, errors.New("statx: the kernel tells no mount id: Linux 5.8 is needed")
	}
	return st.Mnt_id, nil
}

// awaitObserver waits until the supervisor says that it observes this container.
// What it does not observe will be missing from its proposals, which is no reason
// to keep the workload from running.
func awaitObserver(dir string) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	mount, err := mountID(fd)
	unix.Close(fd)
	if err != nil {
		return
	}
	name := filepath.Join(dir, ObservedName(mount))
	for deadline := time.Now().Add(observerWait); time.Now().Before(deadline); time.Sleep(500 * time.Microsecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
}
