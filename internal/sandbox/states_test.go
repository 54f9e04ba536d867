// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/config"
)

// damage makes the file of a sandbox that there is or not one that cannot be read.
func damage(t *testing.T, c *config.Config, id, text string) string {
	t.Helper()
	dir := filepath.Join(sandboxesDir(c.RunDir), id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, infoFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Whatever a sandbox's file has become, others are made, listed, reloaded and
// removed, and it goes when somebody says so.
func TestDamagedFilesAreInNobodysWay(t *testing.T) {
	for i, text := range []string{"", "{", "null", "[]", `{"id":"other"}`, `{"id":5}`, "\x00\x01", strings.Repeat(" ", 9<<20)} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := newNode(t)
			root := t.TempDir()
			dir := damage(t, c, "x", text)
			s := start(t, c, request(root, "c1"))
			if ids, err := Reload(t.Context(), c.RunDir, "c1"); err != nil || !slices.Equal(ids, []string{s.request.ID}) {
				t.Errorf("reload: %v, %v", ids, err)
			}
			if _, err := Open(t.Context(), c, request(root, "c2"), inProcess(t)); err != nil {
				t.Errorf("create: %v", err)
			}
			closeContainer(t, c, root, "c1")
			if missing(dir)() {
				t.Error("removed before anybody could look at it")
			}
			if removed, err := Clean(c.RunDir); err != nil || !slices.Equal(removed, []string{"x"}) || !missing(dir)() {
				t.Errorf("clean: %v, %v", removed, err)
			}
			if all, err := List(c.RunDir); err != nil || len(all) != 1 || all[0].State() != Running {
				t.Errorf("the one that runs: %+v, %v", all, err)
			}
		})
	}
}

// The container of a damaged sandbox can be made again, and deleted.
func TestTheDamagedSandboxItself(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	r := request(root, "c1")
	damage(t, c, r.ID, "")
	if _, err := Open(t.Context(), c, r, inProcess(t)); err != nil {
		t.Errorf("create: %v", err)
	}
	closeContainer(t, c, root, "c1")
	dir := damage(t, c, r.ID, "{")
	closeContainer(t, c, root, "c1")
	if !missing(dir)() {
		t.Error("deleted, but its sandbox is left")
	}
}

// A supervisor that is at work mends its file.
func TestADamagedFileOfALivingSandbox(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	damage(t, c, s.request.ID, "")
	if removed, err := Clean(c.RunDir); err != nil || len(removed) != 0 {
		t.Errorf("clean: %v, %v", removed, err)
	}
	if info := only(t, c); info.State() != Running || len(info.Containers) != 1 {
		t.Errorf("got %+v", info)
	}
}

// A kill at any step of making or removing a directory leaves nothing in the way.
func TestRemainsAreSwept(t *testing.T) {
	c := newNode(t)
	all := sandboxesDir(c.RunDir)
	self, err := thisProcess()
	if err != nil {
		t.Fatal(err)
	}
	swept := []string{newPrefix + "1-1-x", newPrefix, newPrefix + "a-b-c", oldPrefix + "1"}
	kept := fmt.Sprintf("%s%d-%d-y", newPrefix, self.PID, self.StartTime)
	for _, name := range append(swept, kept) {
		if err := os.MkdirAll(filepath.Join(all, name, "tls"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(namespacesDir(c.RunDir), 0o700); err != nil {
		t.Fatal(err)
	}
	claimed := filepath.Join(namespacesDir(c.RunDir), "4-1")
	if err := os.WriteFile(claimed, []byte(`{"pid":1,"start_time":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(c.RunDir); err != nil {
		t.Fatal(err)
	}
	for _, name := range swept {
		if !missing(filepath.Join(all, name))() {
			t.Errorf("%s is left", name)
		}
	}
	if missing(filepath.Join(all, kept))() || !missing(claimed)() {
		t.Error("what is being made and what was given up are not told apart")
	}
}

// A sandbox that ends says so before it lets go of its control socket.
func TestReloadOfAnEndingSandbox(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	for i := range 20 {
		id := fmt.Sprintf("c%d", i)
		r := request(root, id)
		r.Policy = "agent"
		s, err := Start(c, r)
		if err != nil {
			t.Fatal(err)
		}
		go s.Detach(root, id)
		if _, err := Reload(t.Context(), c.RunDir, "agent"); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		<-s.Done()
	}
}
