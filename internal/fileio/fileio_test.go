// SPDX-License-Identifier: Apache-2.0

package fileio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(path, 4); err != nil || string(data) != "1234" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := ReadFile(path, 3); data != nil || !errors.Is(err, ErrTooLarge) ||
		!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := ReadFile(path+"x", 3); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestReplacement(t *testing.T) {
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"Write": Write, "Replace": Replace} {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		for _, text := range []string{"old", "new"} {
			if err := write(path, []byte(text), 0o640); err != nil {
				t.Fatal(name, err)
			}
			info, err := os.Stat(path)
			data, _ := os.ReadFile(path)
			if err != nil || string(data) != text || info.Mode() != 0o640 {
				t.Errorf("%s: %q, %v, %v", name, data, info.Mode(), err)
			}
		}
		if err := write(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, no directory: %v", name, err)
		}
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := write(filepath.Join(dir, "d"), nil, 0o600); err == nil {
			t.Errorf("%s: a directory was replaced", name)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 2 {
			t.Errorf("%s: leaves %v", name, entries)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
}
