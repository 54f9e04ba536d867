package sandbox

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
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
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !awaitProgram(t.Context(), cmd.Process.Pid) {
		t.Error("a program of its own mounts has not begun")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if awaitProgram(t.Context(), cmd.Process.Pid) {
		t.Error("what has ended has begun")
	}
	// A kernel thread has no program, as a process that is about to be executed has none.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if awaitProgram(ctx, 2) {
		t.Error("a process without a program has begun")
	}
}
