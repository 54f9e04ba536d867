// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func TestAnswersAreTheLowLevelRuntimes(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container().Start()
	for _, args := range [][]string{
		{"state", c.ID}, {"list"}, {"list", "--format", "json"}, {"list", "-q"}, {"ps", "--format", "json", c.ID},
		{"spec", "--help"}, {"run", "--help"}, {"create", "-h"},
		{"state", "nobody"}, {"delete", "nobody"}, {"delete", "--force", "nobody"}, {"kill", "nobody", "KILL"}, {"exec", "nobody", "true"},
		{"state"}, {"exec", c.ID}, {"state", "--frobnicate", c.ID}, {"kill", "--frobnicate", c.ID}, {"start", c.ID},
		{"--frobnicate", "state", c.ID}, {"frobnicate"}, {"checkpoint", "nobody"}, {"update", "--frobnicate=1", c.ID},
	} {
		args = append([]string{"--root", w.Root}, args...)
		got, want := w.OpenShell(args...), w.Runc(args...)
		got.Stderr, want.Stderr = withoutTime(got.Stderr), withoutTime(want.Stderr)
		if got != want {
			t.Errorf("%q:\ngot %s\nwant %s", args, got, want)
		}
	}
}

// withoutTime takes the time out of log lines.
func withoutTime(text string) string {
	var out []string
	for line := range node.Lines(text) {
		if strings.HasPrefix(line, "time=") {
			_, line, _ = strings.Cut(line, " ")
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	for _, flag := range []string{"--version", "-v"} {
		got := w.OpenShell(flag)
		if got.Status != 0 || !strings.HasPrefix(got.Stdout, "openshell version ") || !strings.HasSuffix(got.Stdout, w.Runc("--version").Stdout) {
			t.Errorf("%s: %s", flag, got)
		}
	}
}

func TestFeatures(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	var got, want map[string]any
	node.Must(t, json.Unmarshal([]byte(w.OpenShell("features").Stdout), &got))
	node.Must(t, json.Unmarshal([]byte(w.Runc("features").Stdout), &want))
	notes := got["annotations"].(map[string]any)
	if notes["openshell.ai/version"] == nil {
		t.Errorf("annotations %v", notes)
	}
	delete(notes, "openshell.ai/version")
	// What engines must not pass on from users whom they do not trust.
	const unsafe = "potentiallyUnsafeConfigAnnotations"
	keys, _ := got[unsafe].([]any)
	if !slices.Contains(keys, any(annotations.KeyPermissive)) {
		t.Errorf("%s: %v", unsafe, keys)
	}
	keys = slices.DeleteFunc(keys, func(key any) bool { return strings.HasPrefix(key.(string), annotations.Prefix) })
	if got[unsafe] = keys; len(keys) == 0 && want[unsafe] == nil {
		delete(got, unsafe)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("features:\n%v\nand of the low-level runtime:\n%v", got, want)
	}
}

func TestSpec(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	var texts []string
	for name, run := range map[string]func(...string) node.Outcome{"a": w.OpenShell, "b": w.Runc} {
		dir := filepath.Join(w.Dir, name)
		node.Must(t, os.Mkdir(dir, 0o700))
		if o := run("spec", "--bundle", dir); o.Status != 0 {
			t.Fatal(o)
		}
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		node.Must(t, err)
		texts = append(texts, string(text))
	}
	if texts[0] != texts[1] {
		t.Errorf("spec wrote\n%s\nand runc\n%s", texts[0], texts[1])
	}
}

// killsItsShell has a shell killed that is not the first process, which the
// kernel protects.
const killsItsShell = "sh -c 'kill -TERM $$'; exit $?"

func TestExitStatuses(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	for text, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, killsItsShell: 143} {
		c := w.Container(node.Script(text))
		if o := c.Run(); o.Status != want || o.Stderr != "" && text != killsItsShell {
			t.Errorf("run %q: %s", text, o)
		}
	}

	c := w.Container().Start()
	for want, argv := range map[int][]string{
		0: {"true"}, 1: {"false"}, 9: {"sh", "-c", "exit 9"}, 127: {"/bin/no-such-program"}, 126: {"/etc/passwd"}, 130: {"sh", "-c", "kill -INT $$"},
	} {
		if o := c.Exec(argv...); o.Status != want {
			t.Errorf("exec %q, want %d: %s", argv, want, o)
		}
	}

	killed := w.Container()
	killed.Begun = true
	run := w.Begin("--root", w.Root, "run", "--bundle", killed.Bundle, killed.ID)
	node.Eventually(t, node.Patience, "the container to run", func() bool { return killed.State() == "running" })
	if o := w.OCI("kill", killed.ID, "KILL"); o.Status != 0 {
		t.Fatal(o)
	}
	if o := w.Finish(run); o.Status != 137 {
		t.Errorf("run of a container that was killed: %s", o)
	}
	if state := killed.State(); state != "gone" {
		t.Errorf("state after a foreground run: %s", state)
	}
}

func TestStandardStreams(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Script("cat; echo err >&2"))
	c.Begun = true
	cmd := w.Command("--root", w.Root, "run", "--bundle", c.Bundle, c.ID)
	cmd.Stdin = strings.NewReader("hello\n")
	w.Launch(cmd)
	if o := w.Finish(cmd); o.Status != 0 || o.Stdout != "hello\n" || o.Stderr != "err\n" {
		t.Error(o)
	}
}

func TestDetachedRun(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container()
	c.Begun = true
	pidFile := filepath.Join(w.Dir, "pid")
	if o := w.OCI("run", "-d", "--pid-file", pidFile, "-b", c.Bundle, c.ID); o.Status != 0 || o.Stdout+o.Stderr != "" {
		t.Fatal(o)
	}
	text, err := os.ReadFile(pidFile)
	node.Must(t, err)
	if pid, err := strconv.Atoi(string(text)); err != nil || pid != c.PID() || c.State() != "running" {
		t.Errorf("pid file %q, pid %d, state %s", text, c.PID(), c.State())
	}
	if _, err := os.Stat("/proc/" + string(text)); err != nil {
		t.Error(err)
	}
	c.Delete()
	if state := c.State(); state != "gone" {
		t.Errorf("state after delete: %s", state)
	}
	if len(w.Sandboxes()) > 0 {
		t.Errorf("delete returned before the sandbox was gone: %q", w.Sandboxes())
	}
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container()
	pidFile := filepath.Join(w.Dir, "pid")
	c.Create("--pid-file=" + pidFile)
	if state := c.State(); state != "created" {
		t.Errorf("state after create: %s", state)
	}
	if text, _ := os.ReadFile(pidFile); string(text) != strconv.Itoa(c.PID()) {
		t.Errorf("pid file %q, pid %d", text, c.PID())
	}
	c.LetGo()
	for _, step := range []struct{ command, state string }{{"pause", "paused"}, {"resume", "running"}} {
		if o := w.OCI(step.command, c.ID); o.Status != 0 {
			t.Errorf("%s: %s", step.command, o)
		}
		if state := c.State(); state != step.state {
			t.Errorf("state after %s: %s", step.command, state)
		}
	}
	if o := w.OCI("update", "--pids-limit", "77", c.ID); o.Status != 0 {
		t.Errorf("update: %s", o)
	}
	var stats struct {
		ID   string
		Data struct{ Pids struct{ Limit uint64 } }
	}
	o := w.OCI("events", "--stats", c.ID)
	if err := json.Unmarshal([]byte(o.Stdout), &stats); err != nil || stats.ID != c.ID || stats.Data.Pids.Limit != 77 {
		t.Errorf("events --stats after update: %s", o)
	}
	var pids []int
	o = w.OCI("ps", "--format", "json", c.ID)
	if err := json.Unmarshal([]byte(o.Stdout), &pids); err != nil || !slices.Equal(pids, []int{c.PID()}) {
		t.Errorf("ps, of a container with pid %d: %s", c.PID(), o)
	}
	if o := w.OCI("kill", c.ID, "9"); o.Status != 0 {
		t.Errorf("kill: %s", o)
	}
	node.Eventually(t, node.Patience, "the container's end", func() bool { return c.State() == "stopped" })
	if o := w.OCI("delete", c.ID); o.Status != 0 {
		t.Errorf("delete: %s", o)
	}
}

func TestDeleteOfARunningContainerIsRefused(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Permissive).Start()
	if o := w.OCI("delete", c.ID); o.Status == 0 || c.State() != "running" {
		t.Errorf("delete without --force: %s", o)
	}
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/still"))
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Script("tty; test -t 0 && test -t 1 && test -t 2 && echo three"))
	c.Spec.Process.Terminal = true
	c.Write()
	tty := newConsole(w)
	c.Create("--console-socket", tty.path)
	c.LetGo()
	if text := tty.read(); text != "/dev/pts/0\nthree\n" {
		t.Errorf("the terminal shows %q", text)
	}
}

func TestSecondRunOfABundle(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Permissive, node.Args(node.SequenceOf([]string{"links"}, []string{"status"},
		[]string{"get", "http://" + fakenet.WebHost + "/"})...))
	var mounts []int
	for range 3 {
		o := c.Run()
		list := o.Results(c)
		if o.Status != 0 || len(list) < 3 || !slices.Equal(list[0].Names, []string{"lo"}) || list[1].Fields["Seccomp"] != "2" {
			t.Fatal(o)
		}
		c.AwaitEnd()
		config := c.Config()
		mounts = append(mounts, len(config["mounts"].([]any)))
		if argv := config["process"].(map[string]any)["args"].([]any); len(argv) != len(c.Spec.Process.Args)+2 {
			t.Errorf("program %q", argv)
		}
	}
	if mounts[0] != mounts[1] || mounts[1] != mounts[2] {
		t.Errorf("mounts add up: %d", mounts)
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container()
	config := c.Config()
	vendor := map[string]any{"x": []any{json.Number("9007199254740993"), "é <&>", nil}}
	config["x-vendor"] = vendor
	config["process"].(map[string]any)["x-vendor"] = vendor
	config["linux"].(map[string]any)["x-vendor"] = vendor
	config["mounts"].([]any)[0].(map[string]any)["x-vendor"] = vendor
	config["annotations"] = map[string]any{"org.example/a": "b"}
	text, err := json.Marshal(config)
	node.Must(t, err)
	node.Must(t, os.WriteFile(c.ConfigPath(), text, 0))
	node.Must(t, os.Chmod(c.ConfigPath(), 0o640))
	c.Create()

	after := c.Config()
	for where, at := range map[string]any{
		"the root": after, "process": after["process"], "linux": after["linux"], "mounts[0]": after["mounts"].([]any)[0],
	} {
		if got := at.(map[string]any)["x-vendor"]; !reflect.DeepEqual(got, vendor) {
			t.Errorf("x-vendor of %s is %v", where, got)
		}
	}
	if got := after["annotations"].(map[string]any)["org.example/a"]; got != "b" {
		t.Errorf("annotation %v", got)
	}
	info, err := os.Stat(c.ConfigPath())
	node.Must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
}

func TestDefaultRoot(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container()
	w.Root = "/run/runc"
	c.Begun = true
	for _, args := range [][]string{{"create", "--bundle", c.Bundle, c.ID}, {"start", c.ID}, {"exec", c.ID, "true"}} {
		if o := w.OpenShell(args...); o.Status != 0 {
			t.Fatalf("%q: %s", args, o)
		}
	}
	if !slices.Equal(w.Sandboxes(), []string{c.SandboxID()}) {
		t.Errorf("sandboxes %q", w.Sandboxes())
	}
	if o := w.OpenShell("delete", "-f", c.ID); o.Status != 0 || len(w.Sandboxes()) > 0 {
		t.Errorf("delete: %s, sandboxes %q", o, w.Sandboxes())
	}
}
