package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"openshell.ai/openshell/confine"
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

func TestKernelWithoutLandlock(t *testing.T) {
	for compatibility, runs := range map[string]bool{
		policy.CompatibilityBestEffort: true, policy.CompatibilityHardRequirement: false,
	} {
		t.Run(compatibility, func(t *testing.T) {
			r := rules()
			r.Compatibility, r.Optional = compatibility, systemPaths
			cmd := command(files(t, enforcing(r)), "exec-without-landlock")
			cmd.Path, cmd.Args = probe, append([]string{probe}, cmd.Args...)
			if runs {
				output(t, cmd)
			} else {
				refused(t, cmd, 126, "landlock compatibility is hard_requirement: landlock is not built into this kernel")
			}
		})
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
