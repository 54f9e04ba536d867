// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/policy"
)

// tree makes directories ro, rw, rw2 and other, each with a file f, and the
// ruleset to go with them.
func tree(t *testing.T) (dir string, r *confine.Ruleset) {
	t.Helper()
	dir = testDir(t)
	for _, name := range []string{"ro", "rw", "rw2", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "f"), []byte("data"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	r = rules()
	r.ReadOnly = append(r.ReadOnly, filepath.Join(dir, "ro"))
	r.ReadWrite = []string{filepath.Join(dir, "rw"), filepath.Join(dir, "rw2")}
	return dir, r
}

func requireLandlock(t *testing.T) int {
	t.Helper()
	abi, err := confine.LandlockABI()
	if err != nil {
		t.Skip(err)
	}
	return abi
}

// operate runs file operations in one confined process; D stands for dir.
func operate(t *testing.T, confinement, dir string, operations ...string) []string {
	t.Helper()
	var args []string
	for _, o := range operations {
		args = append(args, strings.ReplaceAll(o, "D/", dir+"/"))
	}
	return strings.Fields(output(t, command(confinement, "files", args...)))
}

func TestFilesystem(t *testing.T) {
	abi := requireLandlock(t)
	dir, r := tree(t)
	tests := []struct {
		operation, want string
		abi             int // from which on the kernel can tell
	}{
		{"read D/ro/f", "ok", 1},
		{"list D/ro", "ok", 1},
		{"write D/ro/f", "EACCES", 1},
		{"create D/ro/new", "EACCES", 1},
		{"mkdir D/ro/new", "EACCES", 1},
		{"remove D/ro/f", "EACCES", 1},
		{"truncate D/ro/f", "EACCES", 3},
		{"link D/ro/f D/rw/stolen", "EXDEV", 1},
		{"read D/other/f", "EACCES", 1},
		{"list D/other", "EACCES", 1},
		{"write D/other/f", "EACCES", 1},
		{"create D/other/new", "EACCES", 1},
		{"truncate D/other/f", "EACCES", 3},
		{"rename D/rw/f D/other/f", "EACCES", 1},
		{"read D/rw/f", "ok", 1},
		{"write D/rw/f", "ok", 1},
		{"create D/rw/new", "ok", 1},
		{"mkdir D/rw/d", "ok", 1},
		{"symlink D/other/f D/rw/s", "ok", 1},
		{"read D/rw/s", "EACCES", 1},
		{"truncate D/rw/f", "ok", 1},
		{"rename D/rw/new D/rw2/new", "ok", 2},
		{"link D/rw/f D/rw2/hard", "ok", 2},
		{"remove D/rw2/new", "ok", 1},
		{"remove D/rw/d", "ok", 1},
		{"write /dev/null", "EACCES", 1}, // /dev is read-only in these rules
	}
	var operations []string
	for _, tt := range tests {
		operations = append(operations, tt.operation)
	}
	for i, got := range operate(t, files(t, enforcing(r)), dir, operations...) {
		if tt := tests[i]; abi >= tt.abi && got != tt.want {
			t.Errorf("%s: %s, want %s", tt.operation, got, tt.want)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "other/f")); string(data) != "data" {
		t.Errorf("a file outside of the rules was changed to %q, %v", data, err)
	}
}

// An image may have its program anywhere, as one built from scratch does in /.
func TestTheProgramItselfIsAllowed(t *testing.T) {
	requireLandlock(t)
	dir := testDir(t)
	data, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	r := rules()
	r.ReadOnly = r.ReadOnly[1:] // the probe
	cmd := command(files(t, enforcing(r)), "files", "read "+program, "read "+probe)
	cmd.Args[slices.Index(cmd.Args, probe)] = program
	if got := strings.Join(strings.Fields(output(t, cmd)), " "); got != "ok EACCES" {
		t.Errorf("its own file and another: %s", got)
	}
}

func TestPermissiveLeavesFilesAlone(t *testing.T) {
	dir, _ := tree(t)
	got := operate(t, files(t, permissive), dir, "write D/ro/f", "create D/other/new", "truncate D/other/f", "remove D/rw/f")
	if fmt.Sprint(got) != "[ok ok ok ok]" {
		t.Errorf("got %s", got)
	}
}

// The policy's own route: what RulesetFor returns is enough for a program to run.
func TestRulesetForRunsAProgram(t *testing.T) {
	requireLandlock(t)
	r := confine.RulesetFor(&policy.Policy{Version: 1, Filesystem: &policy.Filesystem{ReadOnly: []string{probe}}})
	// The tests' own files are below the temporary directory, which the baseline has.
	got := operate(t, files(t, enforcing(r)), "", "read /etc/passwd", "write /etc/passwd", "create /var/x", "write /dev/null", "list /")
	if fmt.Sprint(got) != "[ok EACCES EACCES ok EACCES]" {
		t.Errorf("got %s", got)
	}
}

func TestDeviceControl(t *testing.T) {
	if abi := requireLandlock(t); abi < 5 {
		t.Skip("this kernel's Landlock does not restrict ioctl on devices")
	}
	r := rules()
	r.ReadWrite = []string{"/dev/ptmx", "/dev/pts"}
	if got := operate(t, files(t, enforcing(r)), "", "ioctl /dev/ptmx"); got[0] != "ok" {
		t.Errorf("a new terminal: %s", got[0])
	}
}

func TestWorkdir(t *testing.T) {
	requireLandlock(t)
	dir, r := tree(t)
	r.IncludeWorkdir = true
	confinement := files(t, enforcing(r))
	inside, outside := filepath.Join(dir, "other/new"), filepath.Join(dir, "new")

	cmd := command(confinement, "files", "create "+inside, "create new2", "create "+outside)
	cmd.Dir = filepath.Join(dir, "other")
	if got := output(t, cmd); got != "ok\nok\nEACCES\n" {
		t.Errorf("working directory: got %q", got)
	}
	cmd = command(confinement, "files", "create "+outside, "list /")
	cmd.Dir = "/"
	if got := output(t, cmd); got != "EACCES\nEACCES\n" {
		t.Errorf("the root as working directory: got %q", got)
	}
	r.IncludeWorkdir = false
	cmd = command(files(t, enforcing(r)), "files", "read "+inside)
	cmd.Dir = filepath.Join(dir, "other")
	if got := output(t, cmd); got != "EACCES\n" {
		t.Errorf("working directory that is not included: got %q", got)
	}
}

func TestMissingPaths(t *testing.T) {
	requireLandlock(t)
	missing := "/nonexistent/dir"
	for _, tt := range []struct {
		name, compatibility string
		optional            []string
		runs                bool
	}{
		{"best effort", policy.CompatibilityBestEffort, nil, true},
		{"hard requirement", policy.CompatibilityHardRequirement, nil, false},
		{"hard requirement, optional", policy.CompatibilityHardRequirement, []string{missing}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rules()
			r.Compatibility, r.Optional = tt.compatibility, append(tt.optional, systemPaths...)
			r.ReadWrite = []string{missing}
			cmd := command(files(t, enforcing(r)), "pid")
			if tt.runs {
				output(t, cmd)
			} else {
				refused(t, cmd, 126, `hard_requirement: open "/nonexistent/dir"`)
			}
		})
	}
}

// without runs a command where a system call has a seccomp profile's answer.
func without(cmd *exec.Cmd, call uintptr, answer syscall.Errno) *exec.Cmd {
	cmd.Path = probe
	cmd.Args = append([]string{probe, strconv.Itoa(int(call)), strconv.Itoa(int(answer))}, cmd.Args...)
	cmd.Env = append(cmd.Env, probeVariable+"=exec-without-call")
	return cmd
}

func TestKernelWithoutLandlock(t *testing.T) {
	r := rules()
	r.KernelABI = confine.NoLandlock
	output(t, without(command(files(t, enforcing(r)), "pid"), unix.SYS_LANDLOCK_CREATE_RULESET, syscall.ENOSYS))
}

// What an engine's seccomp profile keeps from the launcher is not taken for what
// the kernel lacks: nothing is executed with less.
func TestEngineRefusesALayer(t *testing.T) {
	requireLandlock(t)
	best, hard := rules(), rules()
	hard.Compatibility, hard.Optional = policy.CompatibilityHardRequirement, systemPaths
	landlock := map[string]confine.Confinement{"best effort": enforcing(best), "hard requirement": enforcing(hard)}
	all := map[string]confine.Confinement{"enforcing": enforcing(best), "permissive": permissive}
	for name, tt := range map[string]struct {
		number uintptr
		under  map[string]confine.Confinement
	}{
		"landlock_create_ruleset": {unix.SYS_LANDLOCK_CREATE_RULESET, landlock},
		"landlock_add_rule":       {unix.SYS_LANDLOCK_ADD_RULE, landlock},
		"landlock_restrict_self":  {unix.SYS_LANDLOCK_RESTRICT_SELF, landlock},
		"seccomp":                 {unix.SYS_SECCOMP, all},
		"prctl":                   {unix.SYS_PRCTL, all},
	} {
		for mode, c := range tt.under {
			for _, answer := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS, 0} {
				if answer == 0 && tt.number == unix.SYS_LANDLOCK_ADD_RULE {
					continue // it grants less
				}
				t.Run(fmt.Sprintf("%s %s %d", name, mode, answer), func(t *testing.T) {
					refused(t, without(command(files(t, c), "pid"), tt.number, answer), 126, "if a seccomp profile of the engine's refuses it, allow ")
				})
			}
		}
	}
}

// A workload whose output goes to a file may open that once more through
// /dev/stdout, but gets no more of it than it has.
func TestStandardStreams(t *testing.T) {
	requireLandlock(t)
	dir, r := tree(t)
	log, err := os.OpenFile(filepath.Join(dir, "other/log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := command(files(t, enforcing(r)), "files", "write /proc/self/fd/1", "read /proc/self/fd/1", "read "+filepath.Join(dir, "other/f"))
	cmd.Stdout = log
	finish(t, cmd)
	got, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "ok\nEACCES\nEACCES\n" {
		t.Errorf("got %q", got)
	}
}

func TestUnprivilegedUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	requireLandlock(t)
	dir, r := tree(t)
	// A directory that this user cannot enter is left out; so it is out of reach.
	private := filepath.Join(dir, "private")
	if err := os.MkdirAll(filepath.Join(private, "sub"), fs.FileMode(0o700)); err != nil {
		t.Fatal(err)
	}
	r.ReadWrite = append(r.ReadWrite, filepath.Join(private, "sub"))
	for _, name := range []string{"rw", "rw/f", "ro/f"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(files(t, enforcing(r)), "files", "write "+dir+"/rw/f", "write "+dir+"/ro/f", "list "+private+"/sub")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	if got := output(t, cmd); got != "ok\nEACCES\nEACCES\n" {
		t.Errorf("got %q", got)
	}
}

// Write access to /proc/PID/mem is another program's identity: no way of granting
// it by a directory goes through.
func TestProcessMemoryIsNotGranted(t *testing.T) {
	requireLandlock(t)
	link := func(target string) func(dir string) string {
		return func(dir string) string {
			name := filepath.Join(dir, "link")
			if err := os.Symlink(target, name); err != nil {
				t.Fatal(err)
			}
			return name
		}
	}
	literally := func(path string) func(string) string { return func(string) string { return path } }
	for name, path := range map[string]func(dir string) string{
		"proc": literally("/proc"), "self": literally("/proc/self"), "thread": literally("/proc/thread-self"),
		"threads": literally("/proc/self/task"), "memory": literally("/proc/self/mem"), "first": literally("/proc/1"),
		"root": literally("/./"), "link to proc": link("/proc"), "link to memory": link("/proc/1/mem"), "link to root": link("/"),
	} {
		t.Run(name, func(t *testing.T) {
			r := rules()
			r.ReadWrite = []string{path(testDir(t))}
			refused(t, command(files(t, enforcing(r)), "pid"), 126, "must not be granted for writing")
		})
	}
	t.Run("below another directory", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("only root can mount")
		}
		dir, r := tree(t)
		cmd := command(files(t, enforcing(r)), "pid")
		point := filepath.Join(dir, "rw/a b/proc")
		script := `mount --make-rprivate / && mkdir -p "$1" && mount -t proc proc "$1" && shift && exec "$@"`
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", script, "sh", point}, cmd.Args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		refused(t, cmd, 126, "the memory of processes is below it, at "+strconv.Quote(point))
	})
	t.Run("working directory", func(t *testing.T) { // the image's choice: as if it were the root
		r := rules()
		r.IncludeWorkdir = true
		cmd := command(files(t, enforcing(r)), "files", "read /proc/self/oom_score_adj", "write /proc/self/oom_score_adj")
		cmd.Dir = "/proc"
		if got := output(t, cmd); got != "ok\nEACCES\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("other files", func(t *testing.T) {
		r := rules()
		r.ReadWrite = []string{"/proc/self/oom_score_adj", "/proc/sys/net"}
		cmd := command(files(t, enforcing(r)), "files", "write /proc/self/oom_score_adj", "write /proc/self/mem", "write /proc/self/comm")
		if got := output(t, cmd); got != "ok\nEACCES\nEACCES\n" {
			t.Errorf("got %q", got)
		}
	})
}
