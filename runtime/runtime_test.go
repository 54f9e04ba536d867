// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
)

// nodeVariable makes this test binary openshell: it names the directory of a
// node, see testConfig.
const nodeVariable = "OPENSHELL_TEST_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(nodeVariable); dir != "" {
		os.Exit(beOpenshell(testConfig(dir), os.Args[1:]))
	}
	os.Exit(m.Run())
}

func beOpenshell(c *config.Config, args []string) int {
	inv := ParseArgs(args)
	if inv.Command == sandbox.SuperviseCommand {
		if err := sandbox.Supervise(c); err != nil {
			return 1
		}
		return 0
	}
	status := 1
	r, err := New(c)
	if err == nil {
		r.Version = "1.2.3"
		status, err = r.Run(context.Background(), inv)
	}
	if err != nil {
		Report(inv, err)
	}
	return status
}

func testConfig(dir string) *config.Config {
	c := config.Default()
	c.Runtime = filepath.Join(dir, "runc")
	c.StateDir, c.RunDir, c.PolicyDir = filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "policies")
	return c
}

// node is a machine with openshell and a low-level runtime that records how it
// was called, and does nothing.
type node struct{ dir string }

const recordingRuntime = `#!/bin/sh
printf '%s\0' "$@" > "$RECORD/args"
echo $$ > "$RECORD/pid"
env > "$RECORD/env"
while [ $# -gt 0 ]; do
	case $1 in
	--process) cat "$2" > "$RECORD/process" ;;
	--process=*) cat "${1#*=}" > "$RECORD/process" ;;
	features) cat "$RECORD/../features.json" 2>/dev/null || exit 9; exit 0 ;;
	esac
	shift
done
exit 3
`

func newNode(t *testing.T) node {
	t.Helper()
	n := node{t.TempDir()}
	if err := os.Mkdir(filepath.Join(n.dir, "record"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"openshell": self, "openshell-init": []byte("#!"), "runc": []byte(recordingRuntime)} {
		if err := os.WriteFile(filepath.Join(n.dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// run carries out a command line and returns what it wrote, and its status.
func (n node) run(t *testing.T, args ...string) (output string, pid, status int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(n.dir, "openshell"), args...)
	cmd.Env = append(os.Environ(), nodeVariable+"="+n.dir, "RECORD="+filepath.Join(n.dir, "record"), "NOTIFY_SOCKET=/n")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.Process.Pid, cmd.ProcessState.ExitCode()
}

func (n node) record(name string) string {
	data, err := os.ReadFile(filepath.Join(n.dir, "record", name))
	if err != nil {
		return ""
	}
	return string(data)
}

func (n node) args() []string {
	return strings.Split(strings.TrimSuffix(n.record("args"), "\x00"), "\x00")
}

// What is not openshell's business reaches the low-level runtime untouched, in
// the same process.
func TestHandsOver(t *testing.T) {
	n := newNode(t)
	for _, line := range []string{
		"--root /r --log /dev/null --log-format json state c1", "kill c1 9", "kill --all c1 15", "start c1", "pause c1",
		"update --resources - c1", "ps --format json c1", "events --stats c1", "checkpoint --help", "list", "spec -b /x", "unknown --x y",
		"create --help", "run", "exec", "exec c1", "exec -h", "delete",
	} {
		want := strings.Fields(line)
		out, pid, status := n.run(t, want...)
		if status != 3 || out != "" {
			t.Errorf("%s: status %d, %s", line, status, out)
		}
		if got := n.args(); !slices.Equal(got, want) {
			t.Errorf("%s: arguments %q", line, got)
		}
		if got := strings.TrimSpace(n.record("pid")); got != strconv.Itoa(pid) {
			t.Errorf("%s: process %s, not %d", line, got, pid)
		}
		if !strings.Contains(n.record("env"), "NOTIFY_SOCKET=/n\n") {
			t.Errorf("%s: the environment is not kept", line)
		}
	}
}

func TestExecIsConfined(t *testing.T) {
	n := newNode(t)
	for line, want := range map[string]string{
		"exec c1 ls --help":                            "exec c1 INIT -- ls --help",
		"exec c1 grep -h x":                            "exec c1 INIT -- grep -h x",
		"--root /r exec -t --cap CAP_BPF -c KILL c1 a": "--root /r exec -t -c KILL c1 INIT -- a",
	} {
		_, _, status := n.run(t, strings.Fields(line)...)
		if got := strings.ReplaceAll(strings.Join(n.args(), " "), launcher, "INIT"); got != want || status != 3 {
			t.Errorf("%s: %s, status %d", line, got, status)
		}
	}
}

func TestExecProcessIsConfined(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "process.json")
	original := `{"args":["ls"],"cwd":"/","capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_KILL"]},"novel":1}`
	if err := os.WriteFile(file, []byte(original), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := ConfineProcess(rootfs.Location{}, []byte(original))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"exec", "--process", file, "--detach", "c1"}, {"exec", "--process=" + file, "c1"}, {"exec", "--preserve-fds", "20", "--process", file, "c1"},
	} {
		out, pid, status := n.run(t, args...)
		if status != 3 || n.record("pid") != fmt.Sprintln(pid) {
			t.Errorf("%q: status %d, %s", args, status, out)
		}
		if got := n.record("process"); got != string(want) {
			t.Errorf("%q: process %s", args, got)
		}
		got := n.args()
		at := slices.IndexFunc(args, func(a string) bool { return strings.HasSuffix(a, file) })
		if len(got) != len(args) || strings.Contains(got[at], file) {
			t.Fatalf("%q: arguments %q", args, got)
		}
		got[at] = args[at]
		if !slices.Equal(got, args) {
			t.Errorf("%q: other arguments changed: %q", args, got)
		}
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != original {
		t.Errorf("the engine's file is now %s, %v", after, err)
	}
}

func TestExecRefuses(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(filepath.Join(n.dir, "bad"), []byte(`{"args":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bad": "process.args: no program", "none": "read process"} {
		out, _, status := n.run(t, "exec", "-p", filepath.Join(n.dir, name), "c1")
		if status != 1 || !strings.Contains(out, want) || n.record("args") != "" {
			t.Errorf("%s: status %d, %s, arguments %q", name, status, out, n.record("args"))
		}
	}
}

func (n node) bundle(t *testing.T, annotations string) string {
	t.Helper()
	b := image(t, "rootfs/bin/sh", "rootfs/etc/", "rootfs/dev/")
	text := fmt.Sprintf(`{"ociVersion":"1.0.2","process":{"args":["/bin/sh"],"cwd":"/"},"root":{"path":"rootfs"},"annotations":{%s},
		"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"network"}]}}`, annotations)
	if err := os.WriteFile(filepath.Join(b, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// await waits until nothing is left of any sandbox.
func (n node) await(t *testing.T) {
	t.Helper()
	dir := filepath.Join(n.dir, "run/sandboxes")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		entries, _ := os.ReadDir(dir)
		if len(entries) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v is left", entries)
		}
	}
}

func TestCreatePreparesAndHandsOver(t *testing.T) {
	n := newNode(t)
	b := n.bundle(t, "")
	want := []string{"--root", filepath.Join(n.dir, "root"), "create", "--bundle", b, "c1"}
	out, pid, status := n.run(t, want...)
	if status != 3 || n.record("pid") != fmt.Sprintln(pid) || !slices.Equal(n.args(), want) {
		t.Fatalf("status %d, %s, arguments %q", status, out, n.args())
	}
	spec, _ := decoded(t, filepath.Join(b, "config.json"))
	if !isLaunched(spec.Process.Args) || !strings.HasPrefix(spec.Linux.Namespaces[2].Path, "/proc/") {
		t.Errorf("process %+v, namespaces %+v", spec.Process, spec.Linux.Namespaces)
	}
	// The low-level runtime made no container.
	n.await(t)
	if _, err := os.Stat(filepath.Join(b, "rootfs/etc/openshell-tls")); err == nil {
		t.Error("the mount point is left")
	}
	// The same id, the same bundle.
	if out, _, status := n.run(t, want...); status != 3 {
		t.Errorf("again: status %d, %s", status, out)
	}
	n.await(t)
}

func TestCreateRefuses(t *testing.T) {
	n := newNode(t)
	good := n.bundle(t, "")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"annotation", []string{"create", "-b", n.bundle(t, `"openshell.ai/permisive":"true"`), "c1"}, "did you mean"},
		{"policy", []string{"create", "-b", n.bundle(t, `"openshell.ai/policy":"absent"`), "c1"}, `policy "absent" does not exist`},
		{"id", []string{"create", "-b", good, "../c1"}, "container id"},
		{"two ids", []string{"create", "--novel", "c1", "-b", good, "c2"}, "one container id"},
		{"another file", []string{"run", "--config", "/x", "-b", good, "c2"}, "--config /x"},
		{"no bundle", []string{"run", "-b", n.dir, "c1"}, "read bundle"},
	} {
		log := filepath.Join(t.TempDir(), "log.json")
		out, _, status := n.run(t, append([]string{"--log", log, "--log-format", "json"}, tt.args...)...)
		if status != 1 || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: status %d, %s", tt.name, status, out)
		}
		data, err := os.ReadFile(log)
		var line struct{ Level, Msg, Time string }
		if err != nil || json.Unmarshal(data, &line) != nil || line.Level != "error" || !strings.Contains(line.Msg, tt.want) {
			t.Errorf("%s: log %s, %v", tt.name, data, err)
		}
	}
	if n.record("args") != "" {
		t.Errorf("the low-level runtime was called: %q", n.args())
	}
	n.await(t)
}

func TestDeleteTellsTheRuntimesStatus(t *testing.T) {
	n := newNode(t)
	want := []string{"--root", n.dir, "delete", "--force", "c1"}
	if out, _, status := n.run(t, want...); status != 3 || !slices.Equal(n.args(), want) {
		t.Errorf("status %d, %s, arguments %q", status, out, n.args())
	}
}

func TestFeatures(t *testing.T) {
	n := newNode(t)
	if out, pid, status := n.run(t, "features"); status != 9 || n.record("pid") != fmt.Sprintln(pid) {
		t.Errorf("without the command: status %d, %s", status, out)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "features.json"), []byte(`{"ociVersionMax":"1.2.0","novel":12345678901234567890,
		"annotations":{"org.opencontainers.runc.version":"1.5.2"},"potentiallyUnsafeConfigAnnotations":["bundle"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, status := n.run(t, "--root", "/r", "features")
	var got struct {
		Annotations map[string]string
		Unsafe      []string `json:"potentiallyUnsafeConfigAnnotations"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s", status, err, out)
	}
	if got.Annotations["openshell.ai/version"] != "1.2.3" || got.Annotations["org.opencontainers.runc.version"] != "1.5.2" {
		t.Errorf("annotations %v", got.Annotations)
	}
	if got.Unsafe[0] != "bundle" || !slices.Contains(got.Unsafe, "openshell.ai/") || !slices.Contains(got.Unsafe, "openshell.ai/permissive") {
		t.Errorf("unsafe annotations %q", got.Unsafe)
	}
	if !strings.Contains(out, "12345678901234567890") {
		t.Errorf("a number is lost: %s", out)
	}
	for _, other := range []string{"text", "[]", `{"annotations":[]}`} {
		if err := os.WriteFile(filepath.Join(n.dir, "features.json"), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, _, status := n.run(t, "features"); out != other || status != 0 {
			t.Errorf("%s: status %d, %s", other, status, out)
		}
	}
}

func TestNew(t *testing.T) {
	for name, want := range map[string]string{"/proc/self/exe": "openshell itself", "/nowhere/runc": "low-level runtime"} {
		c := config.Default()
		c.Runtime = name
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaultRoot(t *testing.T) {
	for name, want := range map[string]string{"runc": "/run/runc", "/usr/local/bin/runc-1.5": "/run/runc", "crun": "/run/crun", "/opt/youki": "/run/youki"} {
		if got := DefaultRoot(&config.Config{Runtime: name}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"c1": true, "A_b+c.d-9": true, "...": true, strings.Repeat("a", 1024): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, "a\x00": false, strings.Repeat("a", 1025): false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestPolicyNameFor(t *testing.T) {
	for id, want := range map[string]string{"web": "web", "a+b": "a_b", "._-x": "x", "+": "container", "...": "container", strings.Repeat("a", 200): strings.Repeat("a", 128)} {
		if got := policyNameFor(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

func TestLogLine(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for format, want := range map[string]string{
		"json": `{"level":"error","msg":"a \"b\"","time":"2026-01-02T03:04:05Z"}`,
		"text": `time="2026-01-02T03:04:05Z" level=error msg="a \"b\""`,
		"":     `time="2026-01-02T03:04:05Z" level=error msg="a \"b\""`,
	} {
		if got := logLine(format, `a "b"`, now); got != want {
			t.Errorf("%s: %s, want %s", format, got, want)
		}
	}
}

func TestReplaceFileLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := fileio.Update(filepath.Join(dir, "none"), nil); err == nil {
		t.Error("a file that does not exist was replaced")
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("old"), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 12, 34); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := fileio.Update(file, []byte("new")); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(file)
	after, _ := os.Stat(file)
	if !bytes.Equal(data, []byte("new")) || after.Mode() != before.Mode() || fmt.Sprintf("%+v", ownerOf(t, file)) != "[12 34]" {
		t.Errorf("got %s, %v, owner %v", data, after.Mode(), ownerOf(t, file))
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
