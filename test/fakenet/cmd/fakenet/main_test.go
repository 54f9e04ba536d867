// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// asCommand makes the test's own program be fakenet.
const asCommand = "FAKENET_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Unsetenv(asCommand)
		main()
		return
	}
	os.Exit(m.Run())
}

func fakenetCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "TMPDIR="+t.TempDir())
	return cmd
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := fakenetCommand(t, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("not quiet: %s", &stderr)
	}
	return strings.TrimSpace(string(out))
}

func TestRunPutsTheCommandIntoOuter(t *testing.T) {
	got := output(t, "run", "--", "sh", "-c", `stat -L -c %i /proc/self/ns/net "$FAKENET_OUTER"; stat -L -c %i /proc/self/ns/mnt`)
	inodes := strings.Fields(got)
	if len(inodes) != 3 || inodes[0] != inodes[1] {
		t.Fatalf("got %q", got)
	}
	for i, name := range map[int]string{0: "net", 2: "mnt"} {
		own, err := exec.Command("stat", "-L", "-c", "%i", "/proc/self/ns/"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		same := strings.TrimSpace(string(own)) == inodes[i]
		if want := name == "mnt"; same != want {
			t.Errorf("%s namespace is the caller's: %v, want %v", name, same, want)
		}
	}
}

func TestRunWritesTheNodeConfiguration(t *testing.T) {
	for name, flags := range map[string][]string{
		"default":    nil,
		"config-out": {"--config-out", filepath.Join(t.TempDir(), "node.yaml")},
	} {
		t.Run(name, func(t *testing.T) {
			script := `echo "$OPENSHELL_CONFIG $FAKENET_CA $FAKENET_DNS"; test -S "$FAKENET_CONTROL" && grep -q CERTIFICATE "$FAKENET_CA" && cat "$OPENSHELL_CONFIG"`
			got := output(t, append(append([]string{"run"}, flags...), "--", "sh", "-c", script)...)
			first, text, _ := strings.Cut(got, "\n")
			var path, ca, dns string
			if fields := strings.Fields(first); len(fields) == 3 {
				path, ca, dns = fields[0], fields[1], fields[2]
			}
			if flags != nil && path != flags[1] {
				t.Errorf("OPENSHELL_CONFIG=%s, want %s", path, flags[1])
			}
			var config struct {
				Version   int
				StateDir  string              `yaml:"state_dir"`
				RunDir    string              `yaml:"run_dir"`
				PolicyDir string              `yaml:"policy_dir"`
				TLS       map[string][]string `yaml:"tls"`
				DNS       map[string][]string `yaml:"dns"`
			}
			if err := yaml.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
			if config.Version != 1 || config.TLS["extra_roots"][0] != ca || config.DNS["upstream"][0] != dns || ca == "" || dns == "" {
				t.Errorf("configuration %+v", config)
			}
			for _, dir := range []string{config.StateDir, config.RunDir, config.PolicyDir} {
				if !filepath.IsAbs(dir) {
					t.Errorf("directory %q", dir)
				}
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left behind", dir)
				}
			}
		})
	}
}

func TestRunPassesTheExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -KILL $$": 137} {
		err := fakenetCommand(t, "run", "--", "sh", "-c", script).Run()
		got := 0
		if status := new(exec.ExitError); errors.As(err, &status) {
			got = status.ExitCode()
		}
		if got != want {
			t.Errorf("%s: exit status %d, want %d", script, got, want)
		}
	}
}

func TestRunSaysWhyItCannotStart(t *testing.T) {
	out, err := fakenetCommand(t, "run", "--", "/nonexistent/program").CombinedOutput()
	status := new(exec.ExitError)
	if !errors.As(err, &status) || status.ExitCode() != 125 || !strings.Contains(string(out), "/nonexistent/program") {
		t.Errorf("got %v: %s", err, out)
	}
}

// started runs a script that prints its pid and waits, and returns that pid.
func started(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	buf := make([]byte, 16)
	n, err := stdout.Read(buf)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestRunPassesSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
		name := map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGUSR1: "USR1"}[s]
		cmd := fakenetCommand(t, "run", "--", "sh", "-c", "trap 'exit 42' "+name+"; echo $$; while :; do sleep 0.05; done")
		started(t, cmd)
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		status := new(exec.ExitError)
		if err := cmd.Wait(); !errors.As(err, &status) || status.ExitCode() != 42 {
			t.Errorf("%s: got %v, want exit status 42", name, err)
		}
	}
}

func TestKillTakesTheCommandAndTheNextRunSweeps(t *testing.T) {
	temp := t.TempDir()
	cmd := fakenetCommand(t, "run", "--", "sh", "-c", "echo $$; exec sleep 60")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	pid := started(t, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for deadline := time.Now().Add(time.Minute); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command outlived fakenet")
		}
	}
	if left := entriesOf(t, temp); len(left) != 1 {
		t.Fatalf("a killed run left %q", left)
	}
	next := fakenetCommand(t, "run", "--", "true")
	next.Env = append(next.Env, "TMPDIR="+temp)
	if err := next.Run(); err != nil {
		t.Fatal(err)
	}
	if left := entriesOf(t, temp); len(left) != 0 {
		t.Errorf("the next run left %q", left)
	}
}

// running reports whether a process is there and no zombie (an orphan's init may be
// slow to reap it).
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
