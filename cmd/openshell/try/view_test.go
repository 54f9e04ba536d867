// SPDX-License-Identifier: Apache-2.0

package try

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// newConfig is a node's whose directories are the test's.
func newConfig(t testing.TB) *config.Config {
	dir := t.TempDir()
	c := config.Default()
	c.StateDir, c.RunDir, c.PolicyDir = dir+"/state", dir+"/run", dir+"/policies"
	for _, d := range []string{c.StateDir, c.RunDir, c.PolicyDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// What the upper layer of an overlay over a directory says is what is seen of it.
func TestLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts: needs root")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	makeFiles(t, root, map[string]os.FileMode{
		"etc/open": 0o644, "etc/secret": 0o600, "etc/keys/": 0o700, "etc/keys/one": 0o600, "tmp/": 0o777 | os.ModeSticky, "tmp/theirs": 0o644,
		"tmp/a/work/": 0o700, "tmp/a/work/here": 0o644, "tmp/a/beside": 0o644, "home/ann/f": 0o644, "home/bob/f": 0o644, "state/f": 0o600,
	})
	at := func(p string) string { return root + "/" + p }
	v := view{
		absent:  []string{at("etc/secret"), at("etc/keys"), at("etc/keys/one"), at("home/bob"), at("tmp/theirs"), at("state")},
		emptied: []string{at("tmp")}, shown: at("tmp/a/work"),
	}
	l, err := newLayers(dir, root, v)
	must(t, err)
	merged := filepath.Join(dir, "merged")
	top, err := rootfs.At(dir).Open()
	must(t, err)
	defer top.Close()
	must(t, l.mount(top, "/merged"))
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	var seen []string
	must(t, filepath.WalkDir(merged, func(path string, _ os.DirEntry, err error) error {
		seen = append(seen, strings.TrimPrefix(path, merged))
		return err
	}))
	want := []string{"", "/etc", "/etc/open", "/home", "/home/ann", "/home/ann/f", "/tmp", "/tmp/a", "/tmp/a/work"}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	for path, mode := range map[string]os.FileMode{"tmp": os.ModeDir | os.ModeSticky | 0o777, "tmp/a/work": os.ModeDir | 0o700} {
		if info, err := os.Stat(filepath.Join(merged, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	must(t, os.WriteFile(filepath.Join(merged, "etc/secret"), []byte("new"), 0o600))
	if data, err := os.ReadFile(at("etc/secret")); err != nil || string(data) != "etc/secret" {
		t.Errorf("the host's file: %q, %v", data, err)
	}
}

func TestNewView(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("looks at what only root sees")
	}
	c := newConfig(t)
	cwd := t.TempDir() // in /tmp, as a rule
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(cwd, link))
	for _, path := range []string{cwd, link} {
		v, err := newView(c, path, false, policy.Filesystem{})
		must(t, err)
		if v.cwd != cwd || v.shown != cwd || v.withoutWorkdir || !slices.Contains(v.absent, c.StateDir) {
			t.Errorf("%s: %+v", path, v)
		}
	}
	v, err := newView(c, filepath.Dir(c.StateDir), true, policy.Filesystem{})
	must(t, err)
	if v.shown != "" || !slices.Contains(v.masked, c.StateDir) {
		t.Errorf("a working directory that is real: %+v", v)
	}
	if v, err := newView(c, "/root", false, policy.Filesystem{}); err != nil || !v.withoutWorkdir {
		t.Errorf("a home: %+v, %v", v, err)
	}
	if _, err := newView(c, c.StateDir, false, policy.Filesystem{}); err == nil || !strings.Contains(err.Error(), c.StateDir) {
		t.Errorf("in what is hidden: %v", err)
	}
	// The policy brings a secret back.
	const shadow = "/etc/shadow"
	if _, err := os.Stat(shadow); err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		granted []string
		hidden  bool
	}{{nil, true}, {[]string{"/etc"}, true}, {[]string{shadow}, false}} {
		v, err := newView(c, cwd, false, policy.Filesystem{ReadOnly: tt.granted})
		must(t, err)
		if slices.Contains(v.absent, shadow) != tt.hidden {
			t.Errorf("granted %q: hidden %t", tt.granted, !tt.hidden)
		}
	}
}

// A name is not given twice, whatever is left of the run that had it.
func TestNewID(t *testing.T) {
	c := newConfig(t)
	store := state.Open(c.StateDir)
	for _, dir := range []string{
		store.PolicyDir("try-aaaaaa"), store.SandboxDir(sandbox.IDFor("/run/runc", "try-bbbbbb")), c.PolicyDir + "/try-cccccc.yaml", c.RunDir + "/try/try-dddddd",
	} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	draw := 0
	next := func() string { draw++; return strings.Repeat(string(rune('@'+draw)), 26) }
	if id, err := newID(c, next); err != nil || id != "try-eeeeee" {
		t.Errorf("%s, %v", id, err)
	}
	if id, err := newID(c, func() string { return "AAAAAAA" }); err == nil || !strings.Contains(err.Error(), "--policy") {
		t.Errorf("%s, %v", id, err)
	}
	if id, err := newID(c, rand.Text); err != nil || state.CheckName(id) != nil {
		t.Errorf("%s, %v", id, err)
	}
}
