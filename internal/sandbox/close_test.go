// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
)

// orphan opens a sandbox with two containers and kills its supervisor.
func orphan(t *testing.T, c *config.Config, root string) Info {
	t.Helper()
	outer := namespaceFile(t)
	for _, id := range []string{"c1", "c2"} {
		r := request(root, id)
		r.Outer = Outer{Kind: OuterPath, Path: outer}
		makeMountPoints(t, c, &r, root, "/stub-"+id)
		if _, err := Open(t.Context(), c, r, spawn); err != nil {
			t.Fatal(err)
		}
	}
	info := only(t, c)
	if err := unix.Kill(info.Supervisor.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reap(t, info.Supervisor.PID)
	if info.Alive() {
		t.Fatal("a killed supervisor is alive")
	}
	return info
}

func TestSweepAfterAKill(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	root := t.TempDir()
	info := orphan(t, c, root)
	init := newProcess(t)
	writeState(t, "runc", root, "c2", init.Process.Pid)
	if err := Sweep(c.RunDir); err != nil {
		t.Fatal(err)
	}
	if got := only(t, c); len(got.Containers) != 2 {
		t.Errorf("a container still runs, but there is %+v", got)
	}
	end(init)
	if err := Sweep(c.RunDir); err != nil {
		t.Fatal(err)
	}
	if !missing(filepath.Join(sandboxesDir(c.RunDir), info.ID))() || !missing(filepath.Join(root, "stub-c1"))() || !missing(filepath.Join(root, "stub-c2"))() {
		t.Error("something is left")
	}
}

// Who deletes one container of a sandbox without supervisor must leave what the
// others use.
func TestCloseAfterAKill(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	info := orphan(t, c, root)
	init := newProcess(t)
	writeState(t, "runc", root, "c2", init.Process.Pid)
	closeContainer(t, c, root, "c1")
	got := only(t, c)
	if len(got.Containers) != 1 || got.Containers[0].ID != "c2" || !missing(filepath.Join(root, "stub-c1"))() || missing(filepath.Join(root, "stub-c2"))() {
		t.Errorf("got %+v", got)
	}
	end(init)
	closeContainer(t, c, root, "c2")
	if !missing(filepath.Join(sandboxesDir(c.RunDir), info.ID))() {
		t.Error("the sandbox is left")
	}
}

func TestOpenAfterAKill(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	orphan(t, c, root)
	if _, err := Open(t.Context(), c, request(root, "c1"), inProcess(t)); err != nil {
		t.Error(err)
	}
}

func TestSweepOfWhatWasNeverFinished(t *testing.T) {
	c := newNode(t)
	fresh, old := filepath.Join(sandboxesDir(c.RunDir), "fresh"), filepath.Join(sandboxesDir(c.RunDir), "old")
	for _, dir := range []string{fresh, old} {
		if err := os.MkdirAll(filepath.Join(dir, "tls"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * unfinished)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(c.RunDir); err != nil {
		t.Fatal(err)
	}
	if !missing(old)() || missing(fresh)() {
		t.Error("a directory that is being made and one that was given up are not told apart")
	}
	if err := Sweep(filepath.Join(c.RunDir, "none")); err != nil {
		t.Error(err)
	}
}

// A second sweeper that read the dead sandbox's file before the first removed it
// must not remove the sandbox that took its place.
func TestAbandonLeavesALivingSandbox(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	if err := abandon(c.RunDir, s.request.ID, func(Container) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if missing(s.dir)() {
		t.Error("a living sandbox was removed")
	}
}
