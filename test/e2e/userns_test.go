// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func TestUserNamespace(t *testing.T) {
	cases.Show(t, "bundles/user namespaces")
	t.Parallel()
	w := node.New(t)
	const script = "cat /proc/self/uid_map; id -u; ls /sys/class/net; touch /tmp/x && stat -c %u /tmp/x; hostname"
	for _, edits := range [][]node.Edit{{node.Permissive}, {}} {
		c := w.Container(append(edits, node.UserNamespace(""), node.Script(script))...).Shift()
		plain := c.RunPlain()
		if o := c.Run(); o != plain || plain.Status != 0 {
			t.Errorf("%s\nand without openshell: %s", o, plain)
		}
	}
}

// The engine's network namespace is the host's user namespace's, as under podman and with pinned namespaces of CRI: sysfs
// can be mounted all the same, for the workload's own is not.
func TestUserNamespaceWithAPreparedNetwork(t *testing.T) {
	t.Parallel()
	w := node.New(t).Apart()
	w.Policy("web", webOnly)
	c := w.Container(node.UserNamespace(""), node.NetnsPath(w.Net), node.Policy("web")).Shift().Start()
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/prepared"))
	refused(t, c.Client("get", "http://"+fakenet.GitHubHost+"/prepared"), http.StatusForbidden)
	if o := c.Exec("/bin/ls", "/sys/class/net"); o.Status != 0 || strings.TrimSpace(o.Stdout) != "lo" {
		t.Errorf("%s", o)
	}
}

// What is let through and what not does not depend on the user namespace.
func TestUserNamespaceLearnsAndEnforces(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	url := "http://" + fakenet.WebHost + "/a"
	learned := w.Container(node.Policy("agent"), node.Permissive, node.UserNamespace(""), node.Args(node.ClientPath, "get", url)).Shift()
	if o := learned.Run(); o.Status != 0 {
		t.Fatal(o)
	}
	learned.AwaitEnd()
	w.Settled("agent")
	w.Operate("approve", "agent", "--all")

	c := w.Container(node.Policy("agent"), node.UserNamespace("")).Shift().Start()
	node.Worked(t, c.Client("get", url))
	if r := c.Client("get", "http://"+fakenet.WebHost+"/b"); r.Status == 200 {
		t.Errorf("another path: %+v", r)
	}
	inner, err := os.Stat(fmt.Sprintf("/proc/%d/ns/user", c.PID()))
	node.Must(t, err)
	own, err := os.Stat("/proc/self/ns/user")
	node.Must(t, err)
	if os.SameFile(inner, own) {
		t.Error("it is in the host's user namespace")
	}
	// Its supervisor may die, and another container may join.
	info := c.Info()
	other := w.Container(node.UserNamespace(fmt.Sprintf("/proc/%d/ns/user", c.PID())), func(s *specs.Spec) {
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/net", c.PID())
			}
		}
		s.Process.Args = []string{node.ClientPath, "get", url}
	}).Shift()
	if o := other.Run(); o.Status != 0 {
		t.Errorf("a container that joins: %s", o)
	}
	if again := c.Info(); again.InnerID != info.InnerID {
		t.Errorf("the namespace is %v, and was %v", again.InnerID, info.InnerID)
	}
}

// A user namespace that is there already, as the engine's that has a path.
func TestUserNamespaceWithAPath(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	first := w.Container(node.UserNamespace("")).Shift().Start()
	path := fmt.Sprintf("/proc/%d/ns/user", first.PID())
	c := w.Container(node.Permissive, node.UserNamespace(path), node.Script("readlink /proc/self/ns/user; ls /sys/class/net")).Shift()
	o := c.Run()
	want, err := os.Readlink(path)
	node.Must(t, err)
	if o.Status != 0 || !strings.HasPrefix(o.Stdout, want+"\n") {
		t.Errorf("%s, want %s", o, want)
	}
}
