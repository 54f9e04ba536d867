// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// bounded is how long a command may take that a supervisor does not answer: two
// seconds, and what else the machine does. It was 15 or 30.
const bounded = 12 * time.Second

// within fails where a command takes longer than it may.
func within(t *testing.T, what string, run func() node.Outcome) node.Outcome {
	t.Helper()
	begun := time.Now()
	o := run()
	if took := time.Since(begun); took > bounded {
		t.Errorf("%s took %s: %s", what, took, o)
	}
	return o
}

func supervisorLog(w *node.World, c *node.Container) string {
	text, _ := os.ReadFile(filepath.Join(w.StateDir, "sandboxes", c.SandboxID(), sandbox.LogFile))
	return string(text)
}

func contains(t *testing.T, where, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q is missing in %s", where, part, text)
		}
	}
}

func TestSignalsToASupervisor(t *testing.T) {
	cases.Show(t, "faults/SIGTERM, SIGINT to a supervisor")
	t.Parallel()
	w := node.New(t)
	w.Policy("web", webOnly)
	c := w.Container(node.Policy("web")).Start()
	for i, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		node.Must(t, unix.Kill(c.Info().Supervisor.PID, sig))
		node.Eventually(t, node.Patience, "a line about "+sig.String(), func() bool {
			return strings.Count(supervisorLog(w, c), "signal ignored") == i+1
		})
	}
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/"))
	if state := c.Info().State(); state != sandbox.Running {
		t.Errorf("the sandbox is %s", state)
	}
	c.Delete()
	c.AwaitEnd()
}

// One supervisor that is stopped holds up neither other sandboxes nor, for long,
// what is done to its own.
func TestStoppedSupervisor(t *testing.T) {
	cases.Show(t, "faults/SIGSTOP of a supervisor")
	t.Parallel()
	w := node.New(t)
	w.Policy("web", webOnly)
	stopped, second := w.Container(node.Policy("web")).Start(), w.Container(node.Policy("web")).Start()
	pid := stopped.Info().Supervisor.PID
	node.Must(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })

	other := w.Container(node.Policy("web"))
	within(t, "create of another", func() node.Outcome { other.Start(); return node.Outcome{} })
	node.Worked(t, other.Client("get", "http://"+fakenet.WebHost+"/"))
	if o := within(t, "approve", func() node.Outcome { return w.OpenShell("approve", "web", "--all") }); o.Status == 0 || !strings.Contains(o.Stderr, strconv.Itoa(pid)) {
		t.Errorf("approve: %s", o)
	}
	contains(t, "ls", w.Operate("ls"), "running")

	node.Must(t, unix.Kill(stopped.PID(), unix.SIGKILL))
	node.Eventually(t, node.Patience, "the container's end", func() bool { return stopped.State() == "stopped" })
	if o := within(t, "delete", func() node.Outcome { return w.OCI("delete", stopped.ID) }); o.Status == 0 || !strings.Contains(o.Stderr, "is stopped") {
		t.Errorf("delete: %s", o)
	}
	if o := within(t, "delete --force", func() node.Outcome { return w.OCI("delete", "--force", stopped.ID) }); o.Status != 0 {
		t.Errorf("delete --force: %s", o)
	}
	if slices.Contains(w.Sandboxes(), stopped.SandboxID()) {
		t.Error("the sandbox is left")
	}
	within(t, "delete of another", func() node.Outcome { second.Delete(); return node.Outcome{} })
}

// Without room for what is learned, everybody who looks is told so; nothing is
// lost once there is room again.
func TestStateWithoutRoom(t *testing.T) {
	cases.Show(t, "faults/state cannot be written")
	t.Parallel()
	w := node.New(t)
	node.Must(t, unix.Mount("tmpfs", w.StateDir, "tmpfs", 0, "size=1m,mode=700"))
	t.Cleanup(func() { _ = unix.Unmount(w.StateDir, unix.MNT_DETACH) })
	c := w.Container(node.Policy("agent"), node.Permissive).Start()
	filler := filepath.Join(w.StateDir, "filler")
	f, err := os.Create(filler)
	node.Must(t, err)
	for buf := make([]byte, 4096); err == nil; _, err = f.Write(buf) {
	}
	f.Close()

	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/a"))
	node.Eventually(t, node.Patience, "the supervisor's health", func() bool { return c.Info().Health.Unwritten > 0 })
	contains(t, "ls", w.OpenShell("ls").Stderr, "evidence is not being written", "no space left")
	contains(t, "doctor", w.OpenShell("doctor").Stdout, "evidence is not being written", "make room in state_dir")
	contains(t, "logs", w.OpenShell("logs", c.SandboxID()).Stderr, "evidence is not being written")
	if o := w.OpenShell("approve", "agent", "--all"); o.Status != 1 || !strings.Contains(o.Stderr, "nothing is approved") {
		t.Errorf("approve --all: %s", o)
	}
	// The container's end, and the next one of its name, wait for no room.
	if o := w.OCI("delete", "--force", c.ID); o.Status != 0 || !strings.Contains(o.Stderr, "is not written") {
		t.Errorf("delete: %s", o)
	}
	contains(t, "ls", w.Operate("ls"), "ending")

	node.Must(t, os.Remove(filler))
	node.Eventually(t, node.Patience, "an end with everything written", func() bool { return len(w.Sandboxes()) == 0 })
	contains(t, "approve", w.Operate("approve", "agent", "--all"), fakenet.WebHost)
	contains(t, "its log", supervisorLog(w, c), "proposals cannot be written")
}

func TestDamagedSandboxFile(t *testing.T) {
	cases.Show(t, "clients/damaged run file")
	t.Parallel()
	w := node.New(t)
	dir := filepath.Join(w.RunDir, "sandboxes", "x")
	node.Must(t, os.Mkdir(dir, 0o700))
	node.Must(t, os.WriteFile(filepath.Join(dir, "sandbox.json"), nil, 0o600))
	c := w.Container().Start()
	contains(t, "ls", w.Operate("ls"), "unreadable", "running")
	contains(t, "doctor", w.OpenShell("doctor").Stdout, "x: is unreadable", "doctor --clean")
	c.Delete()
	c.AwaitEnd()
	contains(t, "doctor --clean", w.OpenShell("doctor", "--clean").Stderr, "removed the unreadable sandbox x")
	if left := w.Sandboxes(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// Whoever approves in the same breath as a run ends gets all of it.
func TestApproveBesideAnEndingContainer(t *testing.T) {
	cases.Show(t, "clients/a sandbox that is just ending", "bundles/ended beside")
	t.Parallel()
	w := node.New(t)
	for i := range 10 {
		path := fmt.Sprintf("/run-%d", i)
		c := w.Container(node.Policy("agent"), node.Permissive, node.Args("/usr/bin/client", "get", "http://"+fakenet.WebHost+path))
		if o := c.Run(); o.Status != 0 {
			t.Fatal(o)
		}
		o := w.OpenShell("approve", "agent", "--all")
		if o.Status != 0 {
			t.Errorf("%d: %s", i, o)
		}
		if i == 0 {
			contains(t, "approve", o.Stdout, path)
		}
	}
}

// supervisorsOf are the supervisors that this world's commands have started.
func supervisorsOf(t *testing.T, w *node.World) (pids []int) {
	t.Helper()
	for _, file := range node.Glob(t, "/proc/[0-9]*/cmdline") {
		line, _ := os.ReadFile(file)
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if !bytes.HasSuffix(line, []byte("\x00"+sandbox.SuperviseCommand+"\x00")) || !bytes.Contains(env, []byte("OPENSHELL_CONFIG="+w.Dir+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Whenever a supervisor is killed while it makes a sandbox, the same container
// can be made at once.
func TestSupervisorKilledWhileItStarts(t *testing.T) {
	cases.Show(t, "clients/supervisor killed at its 14th to 60th step of create")
	t.Parallel()
	w := node.New(t)
	c := w.Container()
	for i := range 12 {
		cmd := w.Begin("--root", w.Root, "create", "--bundle", c.Bundle, c.ID)
		c.Begun = true
		node.Eventually(t, node.Patience, "a supervisor", func() bool { return len(supervisorsOf(t, w)) > 0 })
		time.Sleep(time.Duration(i) * 2 * time.Millisecond) // any moment will do
		for _, pid := range supervisorsOf(t, w) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		w.Finish(cmd)
		w.OCI("delete", "--force", c.ID)
		o := within(t, "create", func() node.Outcome { c.Start(); return node.Outcome{} })
		if o.Status != 0 {
			t.Fatal(o)
		}
		if r := c.Client("links"); !r.OK {
			t.Errorf("%d: %+v", i, r)
		}
		c.Delete()
		c.AwaitEnd()
		if left := w.Sandboxes(); len(left) != 0 {
			t.Errorf("%d: left: %q", i, left)
		}
	}
}

// A decision that is killed is made or not made, and leaves nothing once the next
// command has run.
func TestKillInsideADecision(t *testing.T) {
	cases.Show(t, "faults/kill inside a decision")
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Policy("agent"), node.Permissive, node.Args("/usr/bin/client", "get", "http://"+fakenet.WebHost+"/a"))
	if o := c.Run(); o.Status != 0 {
		t.Fatal(o)
	}
	c.AwaitEnd()
	id := w.Settled("agent")[0].ID
	for i := range 24 {
		verb := "approve"
		if i%2 == 1 {
			verb = "undo"
		}
		cmd := w.Begin(verb, "agent", id)
		time.Sleep(time.Duration(10+3*i) * time.Millisecond) // any moment will do
		_ = cmd.Process.Kill()
		w.Finish(cmd)

		var p learn.Proposal
		node.Must(t, json.Unmarshal([]byte(w.Operate("show", id, "--json")), &p))
		learned := w.Operate("policy", "show", "agent")
		if approved := p.Status == learn.StatusApproved; approved != strings.Contains(learned, p.RuleName) {
			t.Errorf("%d: %s, but the policy is\n%s", i, p.Status, learned)
		}
		for _, path := range node.Files(w.StateDir) {
			if name := filepath.Base(path); strings.HasPrefix(name, ".tmp-") || name == "journal.json" {
				t.Errorf("%d: %s is left", i, path)
			}
		}
	}
}

// The programs are replaced while a container runs: its supervisor goes on, and
// the new command line does everything with it.
func TestProgramsReplaced(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	bin := filepath.Join(w.Dir, "bin")
	node.Must(t, os.Mkdir(bin, 0o755))
	inUse := filepath.Join(bin, "openshell")
	current := w.Command().Path
	for _, helper := range []string{"openshell-init", "openshell-keeper"} {
		node.Must(t, node.CopyFile(filepath.Join(filepath.Dir(current), helper), filepath.Join(bin, helper)))
	}
	build := exec.Command("go", "build", "-ldflags", "-X openshell.ai/openshell/internal/version.stamp=before", "-o", inUse, "../../cmd/openshell")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) node.Outcome {
		t.Helper()
		cmd := w.Command(args...)
		cmd.Path, cmd.Args[0] = inUse, inUse
		w.Launch(cmd)
		return w.Finish(cmd)
	}
	c := w.Container(node.Policy("agent"), node.Permissive)
	for _, args := range [][]string{{"create", "--bundle", c.Bundle, c.ID}, {"start", c.ID}} {
		if o := run(append([]string{"--root", w.Root}, args...)...); o.Status != 0 {
			t.Fatalf("%s: %s", args[0], o)
		}
	}
	c.Begun = true
	if v := c.Info().Version; v != "before" {
		t.Fatalf("the supervisor is of version %q", v)
	}

	next := inUse + ".next"
	node.Must(t, node.CopyFile(current, next))
	node.Must(t, os.Rename(next, inUse))
	// A program of yet another version may have said more than this one knows.
	amend(t, filepath.Join(w.RunDir, "sandboxes", c.SandboxID(), "sandbox.json"))

	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/a"))
	for _, p := range w.Settled("agent") {
		amend(t, filepath.Join(w.StateDir, "policies", "agent", "proposals", p.ID+".json"))
	}
	contains(t, "ls", run("ls").Stdout, "running", "permissive")
	o := run("approve", "agent", "--all")
	if o.Status != 0 {
		t.Errorf("approve: %s", o)
	}
	contains(t, "approve", o.Stdout, fakenet.WebHost, "reloaded in: "+c.SandboxID())
	if o := run("--root", w.Root, "exec", c.ID, "/usr/bin/client", "get", "http://"+fakenet.WebHost+"/b"); o.Status != 0 {
		t.Errorf("exec: %s", o)
	}
	if o := run("--root", w.Root, "delete", "--force", c.ID); o.Status != 0 || o.Stderr != "" {
		t.Errorf("delete: %s", o)
	}
	c.AwaitEnd()
}

// amend adds a field to a JSON document that nobody knows.
func amend(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	node.Must(t, err)
	text := strings.Replace(string(data), "{", `{"of_a_later_version": {"a": [1]},`, 1)
	node.Must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	node.Must(t, os.Rename(path+".new", path))
}
