// SPDX-License-Identifier: Apache-2.0

// Package launcher_test runs openshell-init, which is a C program: its source is in
// src, and hack/launcher builds it.
package launcher_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/confine/filter"
	"openshell.ai/openshell/policy"
)

// The tests run the command as the runtime does. The workload is this test binary
// again, which does what the variable probeVariable names; see probe_test.go.
var (
	shared   string // a directory that every user may read
	initPath string // the command, built as it is shipped
	probe    string // a copy of this test binary
	compiled filter.Programs
)

func TestMain(m *testing.M) {
	if name := os.Getenv(probeVariable); name != "" {
		runProbe(name)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if shared, err = os.MkdirTemp("", "openshell-init-test-"); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(shared)
	if err := os.Chmod(shared, 0o755); err != nil {
		return fail(err)
	}
	initPath, probe = filepath.Join(shared, confine.InitName), filepath.Join(shared, "probe")
	build := exec.Command("../../hack/launcher", initPath)
	if out, err := build.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("%w: %s", err, out))
	}
	if err := copyFile("/proc/self/exe", probe); err != nil {
		return fail(err)
	}
	if compiled, err = filter.Compile(filter.Options{}); err != nil {
		return fail(err)
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// testDir returns a new directory that every user may enter.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "t-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// systemPaths is what the probe itself needs. The directory of the tests is below
// a temporary directory, which is therefore not granted.
var systemPaths = []string{"/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev"}

// rules is a ruleset with which the probe runs, for a test to add to.
func rules() *confine.Ruleset {
	return &confine.Ruleset{
		Compatibility: policy.CompatibilityBestEffort,
		ReadOnly:      append([]string{probe, initPath}, systemPaths...),
	}
}

func enforcing(r *confine.Ruleset) confine.Confinement {
	if r.KernelABI == 0 {
		var err error
		if r.KernelABI, err = confine.KernelLandlock(); err != nil {
			panic(err)
		}
	}
	return confine.Confinement{Mode: confine.ModeEnforcing, Landlock: r}
}

var permissive = confine.Confinement{Mode: confine.ModePermissive}

// files writes a confinement and returns its directory.
func files(t *testing.T, c confine.Confinement) string {
	t.Helper()
	dir := filepath.Join(testDir(t), "confine")
	if err := confine.WriteDir(dir, compiled.Loud, compiled.Quiet, c); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command runs a probe with arguments under the confinement in dir.
func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(initPath, append([]string{"--dir", dir, "--", probe}, args...)...)
	cmd.Env = append(os.Environ(), probeVariable+"="+name)
	cmd.Dir = "/"
	return cmd
}

type result struct {
	stdout, stderr string
	code           int            // -1 when a signal ended it
	signal         syscall.Signal // 0 when it exited
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.signal = status.Signal()
	}
	return r
}

// output runs a probe that must succeed and returns what it prints.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	r := finish(t, cmd)
	if r.code != 0 {
		t.Fatalf("exit code %d, signal %d, stderr %q", r.code, r.signal, r.stderr)
	}
	return r.stdout
}

// refused runs a command that must not reach the workload.
func refused(t *testing.T, cmd *exec.Cmd, code int, message string) {
	t.Helper()
	r := finish(t, cmd)
	if r.code != code || r.stdout != "" {
		t.Errorf("exit code %d, stdout %q, want %d and nothing", r.code, r.stdout, code)
	}
	line, rest, _ := strings.Cut(r.stderr, "\n")
	if !strings.HasPrefix(line, "openshell-init: ") || !strings.Contains(line, message) || rest != "" {
		t.Errorf("stderr %q, want one line with %q", r.stderr, message)
	}
}
