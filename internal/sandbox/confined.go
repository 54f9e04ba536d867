// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
)

// Confined is what holds a container's first process, as it was found when
// openshell-init had become the workload's program. Seccomp and no_new_privs the
// kernel tells of every process. Of Landlock it tells nothing: it is in force where
// openshell-init was told to apply it, for otherwise that executes nothing.
type Confined struct {
	LandlockABI    int  `json:"landlock_abi"`    // 0: Landlock is not applied
	SeccompFilters int  `json:"seccomp_filters"` // the engine's and openshell's
	NoNewPrivs     bool `json:"no_new_privs"`
}

// reportConfined finds out what is in force in a container, and says so in
// sandbox.json and the log. A container without openshell's filter is stopped.
func (s *Sandbox) reportConfined(ctx context.Context, m *member, pid int, init *process) {
	abi := s.landlockABI()
	if !awaitProgram(ctx, pid) {
		return
	}
	// Where the confinement was replaced meanwhile, the launcher may have read either.
	c := Confined{LandlockABI: min(abi, s.landlockABI())}
	err := c.readStatus(pid)
	if ctx.Err() != nil || !init.lives() {
		return // it may be another process's status
	}
	if err == nil {
		err = s.updateInfo(func() { m.confined = &c })
	}
	if err != nil {
		s.recordError("what is in force in container "+m.ID+" is not known", err)
		return
	}
	if c.SeccompFilters == 0 || !c.NoNewPrivs {
		s.recordError("container "+m.ID+" is stopped",
			errors.Join(errors.New("it runs without its confinement: "+s.describe(c)), init.kill()))
		return
	}
	severity := audit.SeverityInformational
	if c.LandlockABI == 0 {
		severity = audit.SeverityMedium
	}
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "CONFINED", Severity: severity,
		Message: fmt.Sprintf("container %s has begun with %s", m.ID, s.describe(c))})
}

// landlockABI is what openshell-init is to apply by now, 0 for nothing.
func (s *Sandbox) landlockABI() int {
	r := s.confinement(s.rules.Load().policies).Landlock
	if r == nil {
		return 0
	}
	return max(r.KernelABI, 0)
}

func (s *Sandbox) describe(c Confined) string {
	text := fmt.Sprintf("Landlock ABI %d", c.LandlockABI)
	switch {
	case s.landlock == confine.NoLandlock:
		text = "no Landlock, which the kernel does not have"
	case c.LandlockABI == 0 && s.config.Confinement.NestedSandboxes:
		text = "no Landlock, which would keep nested sandboxes from mounting"
	case c.LandlockABI == 0:
		text = "no Landlock, which is not applied in permissive mode"
	}
	text += fmt.Sprintf(", %d seccomp filters", c.SeccompFilters)
	if !c.NoNewPrivs {
		return text + ", not no_new_privs"
	}
	return text + ", no_new_privs"
}

// readStatus reads what the kernel tells of a process.
func (c *Confined) readStatus(pid int) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	c.parseStatus(string(data))
	return nil
}

// parseStatus takes what it finds in the lines of proc_pid_status(5). Kernels before
// 5.9 do not count filters: there is one at least.
func (c *Confined) parseStatus(status string) {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		n, err := strconv.Atoi(strings.TrimSpace(value))
		switch {
		case err != nil:
		case name == "NoNewPrivs":
			c.NoNewPrivs = n == 1
		case name == "Seccomp" && n == unix.SECCOMP_MODE_FILTER:
			c.SeccompFilters = 1
		case name == "Seccomp_filters": // comes after Seccomp
			c.SeccompFilters = n
		}
	}
}

// awaitProgram waits until a container's first process is the workload's program:
// before, it is the low-level runtime, and openshell-init. Between creation and
// start any time may pass.
func awaitProgram(ctx context.Context, pid int) bool {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		began, err := isProgram(pid)
		if began || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return began
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// isProgram reports whether a process executes a file of its container's mounts
// other than the launcher, which is on one of them, or the launcher that stays. The low-level runtime's own file
// is on a mount of the host's, or on none.
func isProgram(pid int) (bool, error) {
	// One file is asked twice: the process may execute another meanwhile.
	exe, err := os.OpenFile(fmt.Sprintf("/proc/%d/exe", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer exe.Close()
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()))
	if err != nil {
		return false, err
	}
	if name == filepath.Join(confine.Dir, confine.InitName) {
		// Where it stays, it has executed itself under the confinement.
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return bytes.HasPrefix(args, []byte(confine.InitName+"\x00"+confine.AttendFlag+"\x00")), err
	}
	var st unix.Statx_t
	if err := unix.Statx(int(exe.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return false, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return false, err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	has := func(match func(*mountinfo.Info) bool) bool { return slices.ContainsFunc(mounts, match) }
	return has(func(m *mountinfo.Info) bool { return m.Mountpoint == confine.Dir }) &&
		has(func(m *mountinfo.Info) bool { return uint64(m.ID) == st.Mnt_id }), err
}
