// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// firstOutside is the user outside that is root inside.
const firstOutside = 100000

// userNamespace gives a container a user namespace, as docker does with
// userns-remap, podman with --uidmap, and Kubernetes with hostUsers: false.
func userNamespace(path string) node.Edit {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: path})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstOutside, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}
}

// shifted makes a container's bundle belong to the users of its user namespace.
func shifted(t *testing.T, c *node.Container) *node.Container {
	t.Helper()
	for dir := c.Bundle; filepath.Dir(dir) != "/"; dir = filepath.Dir(dir) {
		node.Must(t, os.Chmod(dir, 0o755))
	}
	node.Must(t, filepath.WalkDir(c.Rootfs(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, firstOutside, firstOutside)
	}))
	return c
}

func TestUserNamespace(t *testing.T) {
	cases.Show(t, "bundles/user namespaces")
	t.Parallel()
	w := node.New(t)
	const script = "cat /proc/self/uid_map; id -u; ls /sys/class/net; touch /tmp/x && stat -c %u /tmp/x; hostname"
	for _, edits := range [][]node.Edit{{node.Permissive}, {}} {
		c := shifted(t, w.Container(append(edits, userNamespace(""), node.Script(script))...))
		plain := c.RunPlain()
		if o := c.Run(); o != plain || plain.Status != 0 {
			t.Errorf("%s\nand without openshell: %s", o, plain)
		}
	}
}

// What is let through and what not does not depend on the user namespace.
func TestUserNamespaceLearnsAndEnforces(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	url := "http://" + fakenet.WebHost + "/a"
	learned := shifted(t, w.Container(node.Policy("agent"), node.Permissive, userNamespace(""), node.Args(node.ClientPath, "get", url)))
	if o := learned.Run(); o.Status != 0 {
		t.Fatal(o)
	}
	learned.AwaitEnd()
	w.Settled("agent")
	w.Operate("approve", "agent", "--all")

	c := shifted(t, w.Container(node.Policy("agent"), userNamespace(""))).Start()
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
	other := shifted(t, w.Container(userNamespace(fmt.Sprintf("/proc/%d/ns/user", c.PID())), func(s *specs.Spec) {
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/net", c.PID())
			}
		}
		s.Process.Args = []string{node.ClientPath, "get", url}
	}))
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
	first := shifted(t, w.Container(userNamespace(""))).Start()
	path := fmt.Sprintf("/proc/%d/ns/user", first.PID())
	c := shifted(t, w.Container(node.Permissive, userNamespace(path), node.Script("readlink /proc/self/ns/user; ls /sys/class/net")))
	o := c.Run()
	want, err := os.Readlink(path)
	node.Must(t, err)
	if o.Status != 0 || !strings.HasPrefix(o.Stdout, want+"\n") {
		t.Errorf("%s, want %s", o, want)
	}
}
