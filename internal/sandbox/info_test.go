// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/system"
)

func TestFindAndList(t *testing.T) {
	runDir := t.TempDir()
	if all, err := List(runDir); err != nil || all != nil {
		t.Errorf("no directory: %v, %v", all, err)
	}
	for id, containers := range map[string][]string{
		"web-1": {"web"}, "web2-1": {"web2", "shared"}, "pod-1": {"abcdef", "shared"}, "web": {"x"},
	} {
		info := Info{ID: id}
		for _, c := range containers {
			info.Containers = append(info.Containers, Container{ID: c})
		}
		dir := filepath.Join(sandboxesDir(runDir), id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeInfo(dir, info); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(sandboxesDir(runDir), newPrefix+"1-1-x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if all, err := List(runDir); err != nil || len(all) != 4 {
		t.Errorf("got %v, %v", all, err)
	}
	for id, want := range map[string]string{
		"web-1": "web-1", "web2": "web2-1", "web2-": "web2-1", "abcdef": "pod-1", "abc": "pod-1", "pod": "pod-1",
		"web": "more than one", "w": "more than one", "shared": "more than one", "none": "no such sandbox", "": "no such sandbox",
	} {
		info, err := Find(runDir, id)
		if err == nil && info.ID != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v; want %s", id, info.ID, err, want)
		}
		if want == "no such sandbox" && !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v is not ErrNotFound", id, err)
		}
	}
	if err := os.WriteFile(filepath.Join(sandboxesDir(runDir), "web", infoFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A damaged file is a state of its sandbox, and nobody else's.
	all, err := List(runDir)
	if err != nil || len(all) != 4 {
		t.Fatalf("got %v, %v", all, err)
	}
	for _, info := range all {
		if broken := info.State() == Unreadable; broken != (info.ID == "web") || broken && !strings.Contains(info.Broken.Error(), "web/sandbox.json") {
			t.Errorf("%s: %s, %v", info.ID, info.State(), info.Broken)
		}
	}
	if info, err := Find(runDir, "abc"); err != nil || info.ID != "pod-1" {
		t.Errorf("beside a damaged one: %v, %v", info, err)
	}
}

func TestAlive(t *testing.T) {
	cmd := newProcess(t)
	stat, err := system.Stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	info := Info{Supervisor: ProcessRef{PID: cmd.Process.Pid, StartTime: stat.StartTime}}
	if !info.Alive() {
		t.Error("a running supervisor is dead")
	}
	if (Info{Supervisor: ProcessRef{PID: cmd.Process.Pid, StartTime: stat.StartTime + 1}}).Alive() {
		t.Error("another process of that pid is the supervisor")
	}
	_ = cmd.Process.Kill()
	eventually(t, "a zombie is dead", func() bool { return !info.Alive() })
	_ = cmd.Wait()
	if info.Alive() || (Info{}).Alive() {
		t.Error("no process is the supervisor")
	}
}

func TestIDFor(t *testing.T) {
	seen := map[string]bool{}
	for _, root := range []string{"/run/runc", "/run/containerd/runc/k8s.io"} {
		for _, id := range []string{"c1", "+c1", "..", strings.Repeat("a", 300), strings.Repeat("a", 301)} {
			got := IDFor(root, id)
			if seen[got] || len(got) > 128 || got[0] == '.' {
				t.Errorf("%s in %s: %s", id, root, got)
			}
			seen[got] = true
		}
	}
}
