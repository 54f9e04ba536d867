// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/identity"
)

// linkedImage makes a root file system with links.
func linkedImage(t *testing.T, links map[string]string) rootfs.Location {
	t.Helper()
	dir := t.TempDir()
	for name, target := range links {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	return rootfs.At(dir)
}

// inMountNamespace starts a process in a mount namespace of its own.
func inMountNamespace(t *testing.T) (pid int, mountNamespace uint64) {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() { end(cmd) })
	own, err := mountNamespaceOf("self")
	must(t, err)
	eventually(t, "the process is in its namespace", func() bool {
		mountNamespace, err = mountNamespaceOf(strconv.Itoa(cmd.Process.Pid))
		must(t, err)
		return mountNamespace != own
	})
	return cmd.Process.Pid, mountNamespace
}

// A rule names a program by a link, which two images of a pod have with different
// targets, and a third has not.
func TestLinksHoldInTheirContainer(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	writePolicy(t, c, "pod", `
version: 1
network_policies:
  python:
    endpoints: [{ host: h.example, port: 443 }]
    binaries: [{ path: /usr/local/bin/python3 }]
`)
	first := request(root, "pause")
	first.Policy, first.Outer = "pod", Outer{Kind: OuterPath, Path: namespaceFile(t)}
	first.Container.Rootfs = linkedImage(t, nil)
	s := start(t, c, first)
	join := func(id string, links map[string]string) (mountNamespace uint64) {
		t.Helper()
		r := request(root, id)
		r.Outer, r.Container.Rootfs = first.Outer, linkedImage(t, links)
		_, err := Open(t.Context(), c, r, inProcess(t))
		must(t, err)
		pid, mountNamespace := inMountNamespace(t)
		if name := s.programs.container(mountNamespace); name != "" {
			t.Errorf("%s is known by the name %q before it is made", id, name)
		}
		writeState(t, "runc", root, id, pid)
		return mountNamespace
	}
	one := join("one", map[string]string{"/usr/local/bin/python3": "python3.11"})
	two := join("two", map[string]string{"/usr/local/bin/python3": "/opt/python/bin/python3.12", "/opt/python": "/srv/python"})
	three := join("three", nil)
	allowed := func(mountNamespace uint64, path string) bool {
		aliases := []string{""}
		if name := s.programs.container(mountNamespace); name != "" {
			aliases[0] = identity.Alias(name, path)
		}
		return s.snapshot().Effective.Connect(engine.Connection{Binary: path, Aliases: aliases, Host: "h.example", Port: 443}).Allowed
	}
	_, stranger := inMountNamespace(t)
	check := func(when string) {
		t.Helper()
		for _, tt := range []struct {
			in   uint64
			path string
			want bool
		}{
			{one, "/usr/local/bin/python3.11", true}, {two, "/usr/local/bin/python3.11", false}, {three, "/usr/local/bin/python3.11", false},
			{one, "/srv/python/bin/python3.12", false}, {two, "/srv/python/bin/python3.12", true}, {three, "/srv/python/bin/python3.12", false},
			{three, "/usr/local/bin/python3", true}, // a file by that name is what the rule says
			{stranger, "/usr/local/bin/python3.11", false}, {0, "/usr/local/bin/python3.11", false},
		} {
			if got := allowed(tt.in, tt.path); got != tt.want {
				t.Errorf("%s: %s in %d: %v", when, tt.path, tt.in, got)
			}
		}
	}
	check("at first")
	// A link that the workload makes later is not one of the image's.
	text, err := s.programs.containers[2].Rootfs.MarshalText()
	must(t, err)
	link := filepath.Join(string(text), "usr/local/bin/python3")
	must(t, os.Remove(link))
	must(t, os.Symlink("/tmp/evil", link))
	must(t, s.Reload())
	check("after a reload")
	if allowed(two, "/tmp/evil") {
		t.Error("a link of the workload's holds")
	}
	closeContainer(t, c, root, "one")
	if allowed(one, "/usr/local/bin/python3.11") {
		t.Error("the link of a container that has gone holds")
	}
}

// Who shares a mount namespace is in no container for certain, nor is who is in this
// process's.
func TestMountNamespaceOfNoContainer(t *testing.T) {
	root := t.TempDir()
	pid, mountNamespace := inMountNamespace(t)
	var p programs
	for _, id := range []string{"one", "two"} {
		writeState(t, "crun", root, id, pid)
		c := p.add(Container{ID: id, Root: root})
		if name := p.container(mountNamespace); (name == c.name) != (id == "one") {
			t.Errorf("with %s: %q", id, name)
		}
	}
	own, err := mountNamespaceOf("self")
	must(t, err)
	writeState(t, "crun", root, "host", os.Getpid())
	p.add(Container{ID: "host", Root: root})
	if name := p.container(own); name != "" {
		t.Errorf("the host's: %q", name)
	}
}

func TestAliases(t *testing.T) {
	var p programs
	p.add(Container{Rootfs: linkedImage(t, map[string]string{"/bin": "usr/bin", "/usr/bin/sh": "dash", "/usr/bin/loop": "loop"})})
	second := p.add(Container{Rootfs: linkedImage(t, map[string]string{"/bin/sh": "busybox"})})
	p.add(Container{})
	for path, want := range map[string][]string{
		"/bin/sh":     {identity.Alias("1", "/usr/bin/dash"), identity.Alias("2", "/bin/busybox")},
		"/usr/bin/sh": {identity.Alias("1", "/usr/bin/dash")}, "/usr/bin/loop": nil, "/usr/bin/dash": nil,
	} {
		if got := p.aliases(path); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	p.remove(second)
	if got := p.aliases("/bin/sh"); len(got) != 1 {
		t.Errorf("after one has gone: %q", got)
	}
	if c := p.add(Container{}); c.name != "4" {
		t.Errorf("a name is used again: %s", c.name)
	}
}

// The kernel gives the number of a namespace that has gone to another one.
func TestMountNamespaceOfAContainerThatHasGone(t *testing.T) {
	root := t.TempDir()
	var p programs
	c := p.add(Container{ID: "one", Root: root})
	cmd := exec.Command("unshare", "-m", "sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() { end(cmd) })
	writeState(t, "runc", root, "one", cmd.Process.Pid)
	var mountNamespace uint64
	eventually(t, "the container is known", func() bool {
		mountNamespace, _ = mountNamespaceOf(strconv.Itoa(cmd.Process.Pid))
		return p.container(mountNamespace) == c.name
	})
	end(cmd)
	if name := p.container(mountNamespace); name != "" {
		t.Errorf("what has its number now is taken for %q", name)
	}
}
