// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/system"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/sandbox"
)

// sandbox has the run directory say that one runs, with this process as its supervisor.
func (n *testNode) sandbox(id, policyName string, change func(*sandbox.Info)) {
	n.t.Helper()
	stat, err := system.Stat(os.Getpid())
	if err != nil {
		n.t.Fatal(err)
	}
	info := sandbox.Info{ID: id, Policy: policyName, Mode: confine.ModeEnforcing, Started: start,
		Supervisor: sandbox.ProcessRef{PID: os.Getpid(), StartTime: stat.StartTime},
		Containers: []sandbox.Container{{ID: "container-of-" + id}}}
	if change != nil {
		change(&info)
	}
	data, err := json.Marshal(info)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(filepath.Join(n.sandboxDir(id), "sandbox.json"), string(data))
}

func (n *testNode) sandboxDir(id string) string { return filepath.Join(n.runDir, "sandboxes", id) }

func TestLs(t *testing.T) {
	n := newNode(t)
	if out := n.run("ls"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "ID ") {
		t.Errorf("without sandboxes: %q", out)
	}
	if out := n.run("ls", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("without sandboxes: %q", out)
	}
	n.sandbox("s1", "agent", func(i *sandbox.Info) { i.Started = start.Add(time.Hour) })
	n.sandbox("s2", "build", func(i *sandbox.Info) { i.Supervisor.StartTime++; i.Mode = confine.ModePermissive })
	if out := n.run("ls", "-q"); out != "s2\ns1\n" { // a dead one is not permissive: no warning
		t.Errorf("ids: %q", out)
	}
	n.sandbox("s3", "agent", func(i *sandbox.Info) {
		i.Mode, i.Started, i.Deadline = confine.ModePermissive, start.Add(2*time.Hour), time.Now().Add(90*time.Minute+30*time.Second)
	})
	stdout, stderr, code := n.runWith("", "ls")
	if code != 0 || stderr != "warning: 1 sandbox is permissive: what the policy denies is logged and allowed\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	lines := strings.Split(stdout, "\n")
	wantContains(t, lines[1], "s2", "build", "dead")
	wantContains(t, lines[2], "s1", "agent", "enforcing", "container-of-s1", "running")
	wantContains(t, lines[3], "s3", "permissive (1h30m left)", "running")
	stdout, _, _ = n.runWith("", "ls", "--json")
	var list []struct {
		ID    string `json:"id"`
		Alive bool   `json:"alive"`
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 3 || list[0].Alive || !list[1].Alive {
		t.Errorf("%v: %+v", err, list)
	}
}

func TestSandboxRow(t *testing.T) {
	random := strings.Repeat("0123456789abcdef", 4)
	list := []listed{{sandbox.Info{ID: random, Policy: "agent", Mode: confine.ModePermissive, Started: start, Deadline: start.Add(time.Minute),
		Containers: []sandbox.Container{{ID: "web", Confined: &sandbox.Confined{LandlockABI: 7, SeccompFilters: 2, NoNewPrivs: true}}, {ID: random}, {ID: "c"}, {ID: "d"}}}, sandbox.Running, true}}
	rows := sandboxRows(list, start.Add(72*time.Hour))
	want := []string{"0123456789ab", "agent", "permissive (over)", "landlock 7, seccomp", "web 0123456789ab +2", "3d ago", "running"}
	if !reflect.DeepEqual(rows[1], want) {
		t.Errorf("got %q, want %q", rows[1], want)
	}
}

// The weakest of the containers counts.
func TestConfinement(t *testing.T) {
	held := &sandbox.Confined{LandlockABI: 7, SeccompFilters: 2, NoNewPrivs: true}
	for want, other := range map[string]*sandbox.Confined{
		"landlock 7, seccomp":     nil, // has not begun
		"landlock 6, seccomp":     {LandlockABI: 6, SeccompFilters: 1, NoNewPrivs: true},
		"no landlock, seccomp":    {SeccompFilters: 1, NoNewPrivs: true},
		"no landlock, no seccomp": {SeccompFilters: 1},
		"landlock 7, no seccomp":  {LandlockABI: 7, NoNewPrivs: true},
	} {
		if got := confinement([]sandbox.Container{{Confined: other}, {Confined: held}}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := confinement([]sandbox.Container{{ID: "a"}}); got != "-" {
		t.Errorf("nothing has begun: %q", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Hour: "0s", 59 * time.Second: "59s", time.Minute: "1m", 3599 * time.Second: "59m",
		61 * time.Minute: "1h1m", 47*time.Hour + 59*time.Minute: "47h59m", 48 * time.Hour: "2d"} {
		if got := span(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
