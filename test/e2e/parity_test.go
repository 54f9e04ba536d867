package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/test/fakenet"
)

// runc runs the low-level runtime itself.
func (w *world) runc(args ...string) outcome {
	w.t.Helper()
	cmd := w.command(args...)
	path, err := exec.LookPath("runc")
	must(w.t, err)
	cmd.Path, cmd.Args[0] = path, path
	w.launch(cmd)
	return w.finish(cmd)
}

func TestAnswersAreTheLowLevelRuntimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container().start()
	for _, args := range [][]string{
		{"state", c.id}, {"list"}, {"list", "--format", "json"}, {"list", "-q"}, {"ps", "--format", "json", c.id},
		{"spec", "--help"}, {"run", "--help"}, {"create", "-h"},
		{"state", "nobody"}, {"delete", "nobody"}, {"delete", "--force", "nobody"}, {"kill", "nobody", "KILL"}, {"exec", "nobody", "true"},
		{"state"}, {"exec", c.id}, {"state", "--frobnicate", c.id}, {"kill", "--frobnicate", c.id}, {"start", c.id},
		{"--frobnicate", "state", c.id}, {"frobnicate"}, {"checkpoint", "nobody"}, {"update", "--frobnicate=1", c.id},
	} {
		args = append([]string{"--root", w.root}, args...)
		got, want := w.openshell(args...), w.runc(args...)
		got.stderr, want.stderr = withoutTime(got.stderr), withoutTime(want.stderr)
		if got != want {
			t.Errorf("%q:\ngot %s\nwant %s", args, got, want)
		}
	}
}

// withoutTime takes the time out of log lines.
func withoutTime(text string) string {
	var out []string
	for line := range linesOf(text) {
		if strings.HasPrefix(line, "time=") {
			_, line, _ = strings.Cut(line, " ")
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, flag := range []string{"--version", "-v"} {
		got := w.openshell(flag)
		if got.status != 0 || !strings.HasPrefix(got.stdout, "openshell version ") || !strings.HasSuffix(got.stdout, w.runc("--version").stdout) {
			t.Errorf("%s: %s", flag, got)
		}
	}
}

func TestFeatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var got, want map[string]any
	must(t, json.Unmarshal([]byte(w.openshell("features").stdout), &got))
	must(t, json.Unmarshal([]byte(w.runc("features").stdout), &want))
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
	w := newWorld(t)
	var texts []string
	for name, run := range map[string]func(...string) outcome{"a": w.openshell, "b": w.runc} {
		dir := filepath.Join(w.dir, name)
		must(t, os.Mkdir(dir, 0o700))
		if o := run("spec", "--bundle", dir); o.status != 0 {
			t.Fatal(o)
		}
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		must(t, err)
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
	w := newWorld(t)
	for text, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, killsItsShell: 143} {
		c := w.container(script(text))
		if o := c.run(); o.status != want || o.stderr != "" && text != killsItsShell {
			t.Errorf("run %q: %s", text, o)
		}
	}

	c := w.container().start()
	for want, argv := range map[int][]string{
		0: {"true"}, 1: {"false"}, 9: {"sh", "-c", "exit 9"}, 127: {"/bin/no-such-program"}, 126: {"/etc/passwd"}, 130: {"sh", "-c", "kill -INT $$"},
	} {
		if o := c.exec(argv...); o.status != want {
			t.Errorf("exec %q, want %d: %s", argv, want, o)
		}
	}

	killed := w.container()
	killed.begun = true
	run := w.begin("--root", w.root, "run", "--bundle", killed.bundle, killed.id)
	eventually(t, patience, "the container to run", func() bool { return killed.state() == "running" })
	if o := w.oci("kill", killed.id, "KILL"); o.status != 0 {
		t.Fatal(o)
	}
	if o := w.finish(run); o.status != 137 {
		t.Errorf("run of a container that was killed: %s", o)
	}
	if state := killed.state(); state != "gone" {
		t.Errorf("state after a foreground run: %s", state)
	}
}

func TestStandardStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(script("cat; echo err >&2"))
	c.begun = true
	cmd := w.command("--root", w.root, "run", "--bundle", c.bundle, c.id)
	cmd.Stdin = strings.NewReader("hello\n")
	w.launch(cmd)
	if o := w.finish(cmd); o.status != 0 || o.stdout != "hello\n" || o.stderr != "err\n" {
		t.Error(o)
	}
}

func TestDetachedRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container()
	c.begun = true
	pidFile := filepath.Join(w.dir, "pid")
	if o := w.oci("run", "-d", "--pid-file", pidFile, "-b", c.bundle, c.id); o.status != 0 || o.stdout+o.stderr != "" {
		t.Fatal(o)
	}
	text, err := os.ReadFile(pidFile)
	must(t, err)
	if pid, err := strconv.Atoi(string(text)); err != nil || pid != c.pid() || c.state() != "running" {
		t.Errorf("pid file %q, pid %d, state %s", text, c.pid(), c.state())
	}
	if _, err := os.Stat("/proc/" + string(text)); err != nil {
		t.Error(err)
	}
	c.delete()
	if state := c.state(); state != "gone" {
		t.Errorf("state after delete: %s", state)
	}
	if len(w.sandboxes()) > 0 {
		t.Errorf("delete returned before the sandbox was gone: %q", w.sandboxes())
	}
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container()
	pidFile := filepath.Join(w.dir, "pid")
	c.create("--pid-file=" + pidFile)
	if state := c.state(); state != "created" {
		t.Errorf("state after create: %s", state)
	}
	if text, _ := os.ReadFile(pidFile); string(text) != strconv.Itoa(c.pid()) {
		t.Errorf("pid file %q, pid %d", text, c.pid())
	}
	c.letGo()
	for _, step := range []struct{ command, state string }{{"pause", "paused"}, {"resume", "running"}} {
		if o := w.oci(step.command, c.id); o.status != 0 {
			t.Errorf("%s: %s", step.command, o)
		}
		if state := c.state(); state != step.state {
			t.Errorf("state after %s: %s", step.command, state)
		}
	}
	if o := w.oci("update", "--pids-limit", "77", c.id); o.status != 0 {
		t.Errorf("update: %s", o)
	}
	var stats struct {
		ID   string
		Data struct{ Pids struct{ Limit uint64 } }
	}
	o := w.oci("events", "--stats", c.id)
	if err := json.Unmarshal([]byte(o.stdout), &stats); err != nil || stats.ID != c.id || stats.Data.Pids.Limit != 77 {
		t.Errorf("events --stats after update: %s", o)
	}
	var pids []int
	o = w.oci("ps", "--format", "json", c.id)
	if err := json.Unmarshal([]byte(o.stdout), &pids); err != nil || !slices.Equal(pids, []int{c.pid()}) {
		t.Errorf("ps, of a container with pid %d: %s", c.pid(), o)
	}
	if o := w.oci("kill", c.id, "9"); o.status != 0 {
		t.Errorf("kill: %s", o)
	}
	eventually(t, patience, "the container's end", func() bool { return c.state() == "stopped" })
	if o := w.oci("delete", c.id); o.status != 0 {
		t.Errorf("delete: %s", o)
	}
}

func TestDeleteOfARunningContainerIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(permissive).start()
	if o := w.oci("delete", c.id); o.status == 0 || c.state() != "running" {
		t.Errorf("delete without --force: %s", o)
	}
	worked(t, c.client("get", "http://"+fakenet.WebHost+"/still"))
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(script("tty; test -t 0 && test -t 1 && test -t 2 && echo three"))
	c.spec.Process.Terminal = true
	c.write()
	tty := newConsole(w)
	c.create("--console-socket", tty.path)
	c.letGo()
	if text := tty.read(); text != "/dev/pts/0\nthree\n" {
		t.Errorf("the terminal shows %q", text)
	}
}

func TestSecondRunOfABundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(permissive, args(sequenceOf([]string{"links"}, []string{"status"},
		[]string{"get", "http://" + fakenet.WebHost + "/"})...))
	var mounts []int
	for range 3 {
		o := c.run()
		list := o.results(c)
		if o.status != 0 || len(list) < 3 || !slices.Equal(list[0].Names, []string{"lo"}) || list[1].Fields["Seccomp"] != "2" {
			t.Fatal(o)
		}
		c.awaitEnd()
		config := c.config()
		mounts = append(mounts, len(config["mounts"].([]any)))
		if argv := config["process"].(map[string]any)["args"].([]any); len(argv) != len(c.spec.Process.Args)+2 {
			t.Errorf("program %q", argv)
		}
	}
	if mounts[0] != mounts[1] || mounts[1] != mounts[2] {
		t.Errorf("mounts add up: %d", mounts)
	}
}

// config reads the bundle's config.json as it is now, without losing digits.
func (c *container) config() map[string]any {
	c.w.t.Helper()
	f, err := os.Open(c.configPath())
	must(c.w.t, err)
	defer f.Close()
	d := json.NewDecoder(f)
	d.UseNumber()
	var config map[string]any
	must(c.w.t, d.Decode(&config))
	return config
}

func TestUnknownFieldsAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container()
	config := c.config()
	vendor := map[string]any{"x": []any{json.Number("9007199254740993"), "é <&>", nil}}
	config["x-vendor"] = vendor
	config["process"].(map[string]any)["x-vendor"] = vendor
	config["linux"].(map[string]any)["x-vendor"] = vendor
	config["mounts"].([]any)[0].(map[string]any)["x-vendor"] = vendor
	config["annotations"] = map[string]any{"org.example/a": "b"}
	text, err := json.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(c.configPath(), text, 0))
	must(t, os.Chmod(c.configPath(), 0o640))
	c.create()

	after := c.config()
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
	info, err := os.Stat(c.configPath())
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
}

func TestDefaultRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container()
	w.root = "/run/runc"
	c.begun = true
	for _, args := range [][]string{{"create", "--bundle", c.bundle, c.id}, {"start", c.id}, {"exec", c.id, "true"}} {
		if o := w.openshell(args...); o.status != 0 {
			t.Fatalf("%q: %s", args, o)
		}
	}
	if !slices.Equal(w.sandboxes(), []string{c.sandboxID()}) {
		t.Errorf("sandboxes %q", w.sandboxes())
	}
	if o := w.openshell("delete", "-f", c.id); o.status != 0 || len(w.sandboxes()) > 0 {
		t.Errorf("delete: %s, sandboxes %q", o, w.sandboxes())
	}
}
