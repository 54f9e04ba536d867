// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/nftables"
	"openshell.ai/openshell/netns"
)

// rulesIn lists the tables of rules in a namespace.
func rulesIn(t *testing.T, path string) (names []string) {
	t.Helper()
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		names = append(names, table.Name)
	}
	return names
}

// CRI and docker name the namespace of a container's process, which is the
// inner one.
func TestJoinByTheInnerNamespace(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	root := t.TempDir()
	first := request(root, "c1")
	first.Outer = Outer{Kind: OuterPath, Path: namespaceFile(t)}
	ready, err := Open(t.Context(), c, first, inProcess(t))
	if err != nil {
		t.Fatal(err)
	}
	second := request(root, "c2")
	second.Outer = Outer{Kind: OuterPath, Path: ready.Inner}
	again, err := Open(t.Context(), c, second, inProcess(t))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, ready) {
		t.Errorf("joined %+v, not %+v", again, ready)
	}
	if info := only(t, c); len(info.Containers) != 2 {
		t.Errorf("got %+v", info)
	}
}

// A new sandbox with a sealed namespace for its outer one would be a trap.
func TestInnerNamespaceOfADeadSandbox(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	r := request(root, "c1")
	s := start(t, c, r)
	init := newProcess(t)
	writeState(t, "runc", root, "c1", init.Process.Pid)
	eventually(t, "the pid is known", func() bool { return only(t, c).Containers[0].PID == init.Process.Pid })
	dead := only(t, c)
	dead.Supervisor.StartTime++ // it is another process now
	if err := writeInfo(s.dir, dead); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, controlSocket)); err != nil {
		t.Fatal(err)
	}
	second := request(root, "c2")
	second.Outer = Outer{Kind: OuterPath, Path: s.Ready().Inner}
	_, err := Open(t.Context(), c, second, inProcess(t))
	if err == nil || !strings.Contains(err.Error(), "is that of sandbox "+r.ID) {
		t.Errorf("got %v", err)
	}
}

func TestIngressGoesWithTheSandbox(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	outer := namespaceFile(t)
	r := request(t.TempDir(), "c1")
	r.Outer = Outer{Kind: OuterPath, Path: outer}
	s := start(t, c, r)
	if left := rulesIn(t, outer); len(left) != 1 {
		t.Errorf("rules of a running sandbox: %q", left)
	}
	s.Stop()
	if left := rulesIn(t, outer); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestIngressOfADeadSandboxIsRemoved(t *testing.T) {
	c := newNode(t)
	outer, root := namespaceFile(t), t.TempDir()
	r := request(root, "c1")
	r.Outer = Outer{Kind: OuterPath, Path: outer}
	if _, err := Open(t.Context(), c, r, spawn); err != nil {
		t.Fatal(err)
	}
	info := only(t, c)
	supervisor, err := os.FindProcess(info.Supervisor.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := supervisor.Kill(); err != nil {
		t.Fatal(err)
	}
	reap(t, info.Supervisor.PID)
	if left := rulesIn(t, outer); len(left) != 1 {
		t.Fatalf("rules of a killed sandbox: %q", left)
	}
	closeContainer(t, c, root, "c1")
	if left := rulesIn(t, outer); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}
