// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree returns the content of all files of a policy, but for its locks.
func tree(t *testing.T, s *Store) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(s.PolicyDir("p"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "lock") {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func put(t *testing.T, b *Batch, path, text string) {
	t.Helper()
	if err := b.Put(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestBatch(t *testing.T) {
	for _, n := range []int{0, 1, 2, syncEach, syncEach + 1, 200} {
		for how, finish := range map[string]func(*Batch) error{"write": (*Batch).Write, "commit": (*Batch).Commit} {
			s := Open(t.TempDir())
			b := s.Batch("p")
			for i := range n {
				put(t, b, s.ProposalPath("p", fmt.Sprint(i)), "superseded by what follows")
				put(t, b, s.ProposalPath("p", fmt.Sprint(i)), "new")
			}
			if err := finish(b); err != nil {
				t.Fatal(err)
			}
			got := tree(t, s)
			for path, text := range got {
				if text != "new" {
					t.Errorf("%s %d: %s: %q", how, n, path, text)
				}
			}
			if len(got) != n {
				t.Errorf("%s %d: %d files", how, n, len(got))
			}
		}
	}
	s := Open(t.TempDir())
	for _, path := range []string{"/etc/x", s.ProposalPath("q", "1"), s.PolicyDir("p") + "/../x"} {
		if err := s.Batch("p").Put(path, nil); err == nil {
			t.Errorf("took %s", path)
		}
	}
}

// Wherever a Commit is cut short, the next one who looks sees all of it or
// nothing, and nothing else is left.
func TestCommitCutShort(t *testing.T) {
	setUp := func(t *testing.T) (*Store, *Batch) {
		s := Open(t.TempDir())
		for _, id := range []string{"a", "b", "c"} {
			if err := WriteFile(s.ProposalPath("p", id), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if unlock, err := s.Lock("p"); err != nil {
			t.Fatal(err)
		} else {
			unlock()
		}
		b := s.Batch("p")
		for _, id := range []string{"a", "b", "c"} {
			put(t, b, s.ProposalPath("p", id), "new")
		}
		return s, b
	}
	check := func(t *testing.T, s *Store, want string) {
		t.Helper()
		if err := s.Recover("p"); err != nil {
			t.Fatal(err)
		}
		got := tree(t, s)
		for path, text := range got {
			if text != want {
				t.Errorf("%s: %q, want %q", path, text, want)
			}
		}
		if len(got) != 3 {
			t.Errorf("files: %q", got)
		}
	}
	t.Run("while the contents are written", func(t *testing.T) {
		s, b := setUp(t)
		if err := b.stage(); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(b.dir, b.files[2].Temp))
		check(t, s, "old")
	})
	for done := range 4 {
		t.Run(fmt.Sprintf("after %d files", done), func(t *testing.T) {
			s, b := setUp(t)
			if err := b.stage(); err != nil {
				t.Fatal(err)
			}
			if err := WriteJSON(filepath.Join(b.dir, journalName), b.files); err != nil {
				t.Fatal(err)
			}
			for _, f := range b.files[:done] {
				if err := os.Rename(filepath.Join(b.dir, f.Temp), filepath.Join(b.dir, f.Path)); err != nil {
					t.Fatal(err)
				}
			}
			check(t, s, "new")
		})
	}
	t.Run("a journal that leads elsewhere", func(t *testing.T) {
		s, b := setUp(t)
		if err := WriteFile(filepath.Join(b.dir, journalName), []byte(`[{"path":"../../x","temp":"proposals/a.json"}]`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lock("p"); err == nil || !strings.Contains(err.Error(), journalName) {
			t.Errorf("locked: %v", err)
		}
	})
}

// smallDisk mounts a file system of a few pages, which has no room for long.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Without room nothing has changed, and nothing is left.
func TestCommitWithoutRoom(t *testing.T) {
	s := Open(smallDisk(t))
	for _, id := range []string{"a", "b"} {
		if err := WriteFile(s.ProposalPath("p", id), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, s)
	b := s.Batch("p")
	put(t, b, s.ProposalPath("p", "a"), "new")
	put(t, b, s.ProposalPath("p", "b"), strings.Repeat("x", 1<<20))
	if err := b.Commit(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("wrote more than there is room for: %v", err)
	}
	if after := tree(t, s); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%q, want %q", after, before)
	}
}
