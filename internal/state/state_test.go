// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/fileio"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"agent": true, "a": true, "9": true, "A-b_c.d": true, strings.Repeat("x", 128): true,
		"": false, ".": false, "..": false, ".hidden": false, "-x": false, "_x": false, "a/b": false,
		"a\n": false, "a b": false, "a\x00": false, "é": false, strings.Repeat("x", 129): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// No name leads out of the store, and what is written through a bad one fails.
func TestBadNamesReachNothing(t *testing.T) {
	dir := t.TempDir()
	s := Open(filepath.Join(dir, "state"))
	for _, bad := range []string{"", "..", "../../x", "a/../../x", "/etc", "x\x00"} {
		for what, path := range map[string]string{
			"policy": s.PolicyDir(bad), "learned": s.LearnedPath(bad), "proposal": s.ProposalPath("ok", bad),
			"run": s.RunPath("ok", bad), "sandbox": s.SandboxDir(bad),
		} {
			if err := WriteFile(filepath.Join(path, "f"), nil, 0o600); err == nil {
				t.Errorf("%s %q: wrote below %q", what, bad, path)
			}
		}
		if _, err := s.Lock(bad); err == nil {
			t.Errorf("locked %q", bad)
		}
		if _, err := s.ProposalIDs(bad); err == nil {
			t.Errorf("listed proposals of %q", bad)
		}
		if _, err := s.Runs(bad); err == nil {
			t.Errorf("listed runs of %q", bad)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "state" {
			t.Errorf("%s appeared outside of the store", e.Name())
		}
	}
}

func TestLayout(t *testing.T) {
	s := Open("/s")
	for got, want := range map[string]string{
		s.PolicyDir("p"):         "/s/policies/p",
		s.LearnedPath("p"):       "/s/policies/p/learned.yaml",
		s.ProposalPath("p", "i"): "/s/policies/p/proposals/i.json",
		s.RunPath("p", "r"):      "/s/policies/p/runs/r.json",
		s.SandboxDir("c"):        "/s/sandboxes/c",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestLists(t *testing.T) {
	s := Open(t.TempDir())
	if names, err := s.Policies(); err != nil || len(names) != 0 {
		t.Fatalf("policies of an empty store: %v, %v", names, err)
	}
	for _, path := range []string{
		s.ProposalPath("b", "p-2"), s.ProposalPath("b", "p-1"), s.RunPath("a", "r1"),
		filepath.Join(s.proposalsDir("b"), "notes.txt"),
		filepath.Join(s.proposalsDir("b"), fileio.TempPrefix+"p-3.json-1"),
		filepath.Join(s.dir, "policies", "a file"),
	} {
		if err := WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, got []string, err error, want ...string) {
		t.Helper()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	names, err := s.Policies()
	check("policies", names, err, "a", "b")
	names, err = s.ProposalIDs("b")
	check("proposals", names, err, "p-1", "p-2")
	if sizes, err := s.ProposalSizes("b"); err != nil || !maps.Equal(sizes, map[string]int64{"p-1": 2, "p-2": 2}) {
		t.Errorf("sizes: %v, %v", sizes, err)
	}
	if sizes, err := s.ProposalSizes("a"); err != nil || len(sizes) != 0 {
		t.Errorf("no sizes: %v, %v", sizes, err)
	}
	names, err = s.ProposalIDs("a")
	check("no proposals", names, err)
	names, err = s.Runs("a")
	check("runs", names, err, "r1")
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "f")
	for _, content := range []string{"one", "longer than before", ""} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	info, err = os.Stat(filepath.Dir(path))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory's mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("files left: %v", entries)
	}
}

func TestWriteFileFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "d")
	if err := os.MkdirAll(filepath.Join(target, "inhabited"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(target, []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), target) {
		t.Errorf("replaced a directory: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files left: %v", entries)
	}
}

func TestReadJSON(t *testing.T) {
	dir := t.TempDir()
	type doc struct {
		A int `json:"a"`
	}
	path := filepath.Join(dir, "f.json")
	for content, ok := range map[string]bool{
		`{"a":1}`: true, "{\"a\":1}\n": true,
		`{"a":1,"b":2}`: true, `{"a":1}{}`: false, `{"a":1`: false, ``: false, `{"a":"x"}`: false,
		`{"a":1}` + strings.Repeat(" ", MaxFileSize): false,
	} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var d doc
		if err := ReadJSON(path, &d); (err == nil) != ok || ok && d.A != 1 {
			t.Errorf("%.20q: %v, %+v", content, err, d)
		}
	}
	if err := ReadJSON(filepath.Join(dir, "none"), new(doc)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.Symlink(path, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(filepath.Join(dir, "link"), new(doc)); err == nil {
		t.Error("followed a symbolic link")
	}
	if err := ReadJSON(dir, new(doc)); err == nil {
		t.Error("read a directory")
	}
	if err := WriteJSON(path, strings.Repeat("x", MaxFileSize)); !errors.Is(err, fileio.ErrTooLarge) {
		t.Errorf("wrote what ReadJSON does not read: %v", err)
	}
	if err := WriteJSON(path, doc{2}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "{\n  \"a\": 2\n}\n" {
		t.Errorf("wrote %q", got)
	}
}

func TestRemoveLeftovers(t *testing.T) {
	s := Open(t.TempDir())
	if err := s.RemoveLeftovers("none"); err != nil {
		t.Errorf("without state: %v", err)
	}
	keep := s.ProposalPath("p", "p-1")
	for _, path := range []string{
		keep, filepath.Join(s.PolicyDir("p"), fileio.TempPrefix+"learned.yaml-7"), filepath.Join(s.runsDir("p"), fileio.TempPrefix+"r.json-7"),
	} {
		if err := WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveLeftovers("p"); err != nil {
		t.Fatal(err)
	}
	var left []string
	filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if !slices.Equal(left, []string{keep}) {
		t.Errorf("left: %q", left)
	}
}
