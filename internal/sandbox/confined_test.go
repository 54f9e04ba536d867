// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"openshell.ai/openshell/internal/confine"
)

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]Confined{
		"Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n": {SeccompFilters: 3, NoNewPrivs: true},
		"NoNewPrivs:\t1\nSeccomp:\t2\n":                                {SeccompFilters: 1, NoNewPrivs: true}, // before 5.9
		"NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n":           {},
		"Seccomp:\t1\n": {}, // strict mode, not a filter
		"Name:\tSeccomp_filters:\t9\nNoNewPrivs: yes\n": {},
		"": {},
	} {
		var got Confined
		if got.parseStatus(text); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func TestReadStatus(t *testing.T) {
	var c Confined
	if err := c.readStatus(os.Getpid()); err != nil {
		t.Error(err)
	}
	if err := c.readStatus(1 << 30); err == nil {
		t.Error("there is no such process")
	}
}

func TestAwaitProgram(t *testing.T) {
	run := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script+"exec sleep 600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(cmd) })
		return cmd
	}
	contained := run("mount --make-rprivate / && mount -t tmpfs none /dev && mkdir " + confine.Dir + " && mount -t tmpfs none " + confine.Dir + " && ")
	if !awaitProgram(t.Context(), contained.Process.Pid) {
		t.Error("a program of its container's has not begun")
	}
	// The host's own, as the low-level runtime is, and one that has none.
	host := run("").Process.Pid
	eventually(t, "the host's program runs", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", host))
		return string(name) == "sleep\n"
	})
	for _, pid := range []int{host, 2} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if awaitProgram(ctx, pid) {
			t.Errorf("process %d has begun", pid)
		}
	}
	end(contained)
	if awaitProgram(t.Context(), contained.Process.Pid) {
		t.Error("what has ended has begun")
	}
}
