// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"bufio"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// staying starts the launcher so that it stays the program's parent.
func staying(t *testing.T, program ...string) *exec.Cmd {
	t.Helper()
	r := rules()
	return exec.Command(initPath, append([]string{"--stay", "--dir", files(t, enforcing(r)), "--"}, program...)...)
}

func TestStaysConfined(t *testing.T) {
	cmd := staying(t, "/bin/sh", "-c", "grep -h ^Seccomp: /proc/$PPID/task/*/status /proc/self/status; echo $PPID")
	out := strings.Split(strings.TrimSpace(output(t, cmd)), "\n")
	last := len(out) - 1
	if parent := strconv.Itoa(cmd.Process.Pid); last < 2 || out[last] != parent {
		t.Fatalf("the parent is not the launcher, %s: %q", parent, out)
	}
	for _, line := range out[:last] {
		if line != "Seccomp:\t2" {
			t.Errorf("a thread that is not confined: %q", line)
		}
	}
}

func TestStaysForTheStatus(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 37": 37, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137,
		"sleep 0.1 & exit 5":     5, // what it leaves does not keep the container
		"kill -TSTP $$; exit 12": 12,
	} {
		if r := finish(t, staying(t, "/bin/sh", "-c", script)); r.code != want {
			t.Errorf("%s: exit code %d, %q, want %d", script, r.code, r.stderr, want)
		}
	}
	refused(t, staying(t, "no-such-program"), 127, `"no-such-program": not found`)
	data := testDir(t) + "/data"
	if err := os.WriteFile(data, []byte("\x00\x01"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, staying(t, data), 126, "exec format error")
}

func TestStaysAndPassesSignals(t *testing.T) {
	// What this process ignores, the program is not to ignore.
	signal.Ignore(unix.SIGINT, unix.SIGUSR1)
	defer signal.Reset(unix.SIGINT, unix.SIGUSR1)
	for _, tt := range []struct {
		signal syscall.Signal
		script string
		want   int
	}{
		{unix.SIGTERM, "", 143},
		{unix.SIGINT, "", 130},
		{unix.SIGHUP, "", 129},
		{unix.SIGQUIT, "", 131},
		{unix.SIGUSR1, "", 138},
		{unix.SIGTERM, "trap 'exit 9' TERM;", 9},
		// The shell acts only when its child has ended: as a terminal does, both are asked.
		{unix.SIGINT, "trap 'exit 8' INT;", 8},
	} {
		cmd := staying(t, "/bin/sh", "-c", tt.script+"echo ready; while :; do sleep 1; done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		if err := cmd.Process.Signal(tt.signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != tt.want {
			t.Errorf("%v, %q: exit code %d, want %d", tt.signal, tt.script, got, tt.want)
		}
	}
}
