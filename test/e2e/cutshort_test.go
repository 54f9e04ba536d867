// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// An undo that fails between the rule and its proposal is completed by the next command that can, and one that
// fails before leaves both as they were. Until then nothing says "approved" of a rule that is gone.
func TestHalfAnUndo(t *testing.T) {
	cases.Show(t, "faults/half an undo")
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Policy("agent"), node.Permissive, node.Args(node.ClientPath, "get", "http://"+fakenet.WebHost+"/a"))
	if o := c.Run(); o.Status != 0 {
		t.Fatal(o)
	}
	c.AwaitEnd()
	id := w.Settled("agent")[0].ID
	proposals := filepath.Join(w.StateDir, "policies", "agent", "proposals")
	proposal := filepath.Join(proposals, id+".json")
	for _, fault := range []struct {
		name, at string
		flags    uintptr
		undone   bool // once the fault is over, without another undo
	}{
		{"a file that cannot be replaced", proposal, 0, true}, // EBUSY, after the rule is out
		{"a directory that cannot be written", proposals, unix.MS_RDONLY, false},
		{"a policy that cannot be written", filepath.Dir(proposals), unix.MS_RDONLY, false},
	} {
		w.Operate("approve", "agent", id)
		node.Must(t, unix.Mount(fault.at, fault.at, "", unix.MS_BIND|unix.MS_REC, ""))
		if fault.flags != 0 {
			node.Must(t, unix.Mount("", fault.at, "", unix.MS_BIND|unix.MS_REMOUNT|fault.flags, ""))
		}
		if o := w.OpenShell("undo", "agent", id); o.Status == 0 || strings.TrimSpace(o.Stderr) == "" {
			t.Errorf("%s: undo: %s", fault.name, o)
		}
		show, learned := w.OpenShell("show", id, "--json"), w.OpenShell("policy", "show", "agent")
		if show.Status == 0 && strings.Contains(show.Stdout, `"approved"`) &&
			(learned.Status != 0 || !strings.Contains(learned.Stdout, fakenet.WebHost)) {
			t.Errorf("%s: approved without its rule: %s\n%s", fault.name, show, learned)
		}
		node.Must(t, unix.Unmount(fault.at, unix.MNT_DETACH))

		var p learn.Proposal
		node.Must(t, json.Unmarshal([]byte(w.Operate("show", id, "--json")), &p))
		text := w.Operate("policy", "show", "agent")
		if inForce := strings.Contains(text, fakenet.WebHost); (p.Status == learn.StatusApproved) != inForce || inForce == fault.undone {
			t.Errorf("%s: %s afterwards, but the policy is\n%s", fault.name, p.Status, text)
		}
		if !fault.undone {
			w.Operate("undo", "agent", id)
		}
		for _, path := range node.Files(w.StateDir) {
			if name := filepath.Base(path); strings.HasPrefix(name, ".tmp-") || name == "journal.json" {
				t.Errorf("%s: %s is left", fault.name, path)
			}
		}
	}
}

// An exec whose low-level runtime is killed at any moment does not keep its container from being deleted, nor
// another exec from working.
func TestKilledExec(t *testing.T) {
	cases.Show(t, "faults/killed exec")
	t.Parallel()
	w := node.New(t)
	w.Policy("web", webOnly)
	c := w.Container(node.Policy("web")).Start()
	kill := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill() // openshell becomes the low-level runtime: the process is the same
		w.Finish(cmd)
	}
	for i := range 10 {
		cmd := c.BeginExec(node.ClientPath, "listen", "127.0.0.1:9000")
		time.Sleep(time.Duration(15*i) * time.Millisecond) // any moment will do
		kill(cmd)
	}
	stream := c.Stream(fakenet.WebHost, "100000")
	if name, _ := os.Readlink("/proc/" + strconv.Itoa(stream.Process.Pid) + "/exe"); strings.HasSuffix(name, "/openshell") {
		t.Errorf("exec is still %s, not the low-level runtime", name)
	}
	kill(stream)
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/"))
	if o := within(t, "delete --force", func() node.Outcome { return w.OCI("delete", "--force", c.ID) }); o.Status != 0 || o.Stderr != "" {
		t.Errorf("delete --force: %s", o)
	}
	c.AwaitEnd()
	if left := w.Sandboxes(); len(left) != 0 || c.State() != "gone" {
		t.Errorf("the container is %s, left: %q", c.State(), left)
	}
}
