// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/test/machine"
)

const runtimeName = "io.containerd.openshell.v1"

// name returns a new container's.
func (n *node) name(kind string) string {
	n.count++
	return fmt.Sprintf("%s-%d", kind, n.count)
}

// runFlags are what `ctr run` and `ctr container create` get before the image.
// annotations are KEY=VALUE, without the prefix.
func runFlags(annotations ...string) []string {
	flags := []string{"--runtime", runtimeName}
	for _, a := range annotations {
		flags = append(flags, "--annotation", "openshell.ai/"+a)
	}
	return flags
}

// foreground runs a container to its end.
func (n *node) foreground(t *testing.T, flags []string, argv ...string) machine.Outcome {
	t.Helper()
	return n.run(t, n.ctr(runArgs(append([]string{"--rm"}, flags...), n.name("fg"), argv)...))
}

func runArgs(flags []string, id string, argv []string) []string {
	args := append([]string{"run"}, flags...)
	return append(append(args, boxImage, id), argv...)
}

// detached runs a container that is removed when the test ends.
func (n *node) detached(t *testing.T, flags []string, argv ...string) (id string) {
	t.Helper()
	id = n.name("bg")
	t.Cleanup(func() { n.remove(t, id) })
	cmd := n.ctr(runArgs(append([]string{"--detach"}, flags...), id, argv)...)
	if o := n.run(t, cmd); o.Status != 0 {
		t.Fatalf("run %s: %s\n%s", id, o, n.daemonTail())
	}
	return id
}

// remove removes a container, where it is still there.
func (n *node) remove(t *testing.T, id string) {
	t.Helper()
	n.run(t, n.ctr("task", "delete", "--force", id))
	n.run(t, n.ctr("container", "delete", id))
}

// exec runs a program in a container.
func (n *node) exec(t *testing.T, id string, argv ...string) machine.Outcome {
	t.Helper()
	return n.run(t, n.ctr(append([]string{"task", "exec", "--exec-id", n.name("exec"), id}, argv...)...))
}

// status is a task's, or "".
func (n *node) status(t *testing.T, id string) string {
	t.Helper()
	api := tasks.NewTasksClient(n.dial(t))
	return statusOf(n.inNamespace(t.Context()), api, id)
}

func statusOf(ctx context.Context, api tasks.TasksClient, id string) string {
	r, err := api.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return ""
	}
	return r.GetProcess().GetStatus().String()
}

func (n *node) awaitStatus(t *testing.T, id, status string) {
	t.Helper()
	ctx, api := n.inNamespace(t.Context()), tasks.NewTasksClient(n.dial(t))
	eventually(t, id+" is "+status, func() bool { return statusOf(ctx, api, id) == status })
}

// result is a line of the client's output.
type result struct {
	OK      bool              `json:"ok"`
	Command string            `json:"command"`
	Target  string            `json:"target"`
	Status  int               `json:"status"`
	Body    string            `json:"body"`
	SHA256  string            `json:"sha256"`
	Issuer  string            `json:"issuer"`
	Fields  map[string]string `json:"fields"`
	Names   []string          `json:"names"`
	Error   string            `json:"error"`
}

// results reads the client's lines.
func results(t *testing.T, text string) (list []result) {
	t.Helper()
	for line := range linesOf(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r result
		must(t, json.Unmarshal([]byte(line), &r))
		list = append(list, r)
	}
	if len(list) == 0 {
		t.Fatalf("the client printed nothing: %q", text)
	}
	return list
}

// client runs a command of the client in a container.
func (n *node) client(t *testing.T, id string, argv ...string) result {
	t.Helper()
	o := n.exec(t, id, append([]string{clientPath}, argv...)...)
	if o.Stdout == "" {
		t.Fatal(o)
	}
	return results(t, o.Stdout)[0]
}

// worked fails unless the origin itself answered with 200.
func worked(t *testing.T, r result) {
	t.Helper()
	if !r.OK || r.Status != 200 || !strings.Contains(r.Body, `"origin"`) {
		t.Fatalf("want the origin's 200: %+v", r)
	}
}

// refused fails unless the proxy refused a request to a host that no rule has.
func refused(t *testing.T, r result, host string) {
	t.Helper()
	var body struct{ Error, Detail, Reason string }
	if r.Status != 403 || json.Unmarshal([]byte(r.Body), &body) != nil || body.Error != "policy_denied" ||
		body.Reason != "endpoint "+host+":443 is not allowed by any policy" {
		t.Fatalf("want a refusal of %s: %+v", host, r)
	}
}

// sandboxOf is the sandbox of a container, as openshell sees it.
func (n *node) sandboxOf(t *testing.T, id string) sandbox.Info {
	t.Helper()
	all, err := sandbox.List(n.runDir)
	must(t, err)
	for _, info := range all {
		for _, c := range info.Containers {
			if c.ID == id {
				return info
			}
		}
	}
	t.Fatalf("no sandbox of %s: %+v", id, all)
	panic("unreachable")
}

// awaitProposal waits until a policy has the proposal for a host. One for files, or for another host, may be there before.
func (n *node) awaitProposal(t *testing.T, policy, host string) {
	t.Helper()
	eventually(t, "a proposal for "+host+" in "+policy, func() bool {
		all, err := learn.List(state.Open(n.stateDir), policy)
		must(t, err)
		return slices.ContainsFunc(all, func(p learn.Proposal) bool {
			return p.Kind == learn.KindNetwork && p.Rule.Endpoints[0].Host == host
		})
	})
}

// killShim kills a shim as the kernel would that is out of memory.
func (n *node) killShim(t *testing.T, pid int) {
	t.Helper()
	n.mustRun(t, n.on("kill", "-KILL", strconv.Itoa(pid)))
}

// background starts a command whose output goes to a file.
func (n *node) background(t *testing.T, cmd *exec.Cmd) (output func() string) {
	t.Helper()
	out, err := os.CreateTemp(n.dir, "output-")
	must(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		interrupt(cmd)
		_ = cmd.Wait()
	})
	return func() string {
		text, err := os.ReadFile(out.Name())
		must(t, err)
		return string(text)
	}
}

// interrupt kills the program that a command on the machine has become.
func interrupt(cmd *exec.Cmd) {
	if pid, err := machine.Child(cmd); err == nil {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}
