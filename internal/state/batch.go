// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
)

// Batch replaces several files of one policy, with few waits for the disk. Its
// user holds the policy's lock.
type Batch struct {
	dir   string // the policy's
	files []staged
}

// staged is a file that is to be replaced.
type staged struct {
	Path string `json:"path"` // below the policy's directory, as is Temp
	Temp string `json:"temp"` // has the new content
	data []byte
}

// Batch returns an empty one.
func (s *Store) Batch(policyName string) *Batch { return &Batch{dir: s.PolicyDir(policyName)} }

// Put takes the new content of a file of the policy's. It does no I/O.
func (b *Batch) Put(path string, data []byte) error {
	rel, err := filepath.Rel(b.dir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("writing %q: is not below %s", path, b.dir)
	}
	for i := range b.files {
		if b.files[i].Path == rel {
			b.files[i].data = data
			return nil
		}
	}
	b.files = append(b.files, staged{Path: rel, data: data})
	return nil
}

// PutJSON is Put for what WriteJSON would write. It returns the file's size.
func (b *Batch) PutJSON(path string, v any) (size int64, err error) {
	data, err := encodeJSON(path, v)
	if err != nil {
		return 0, err
	}
	return int64(len(data)), b.Put(path, data)
}

// Write replaces the files, each whole or not at all. Where it fails, some may
// have been.
func (b *Batch) Write() error {
	if len(b.files) == 0 {
		return nil
	}
	if err := b.stage(); err != nil {
		return err
	}
	return b.settle()
}

// Commit is Write that replaces all files or none, also where it is cut short by
// a kill: whoever takes the policy's lock next finishes what was begun.
func (b *Batch) Commit() error {
	if len(b.files) < 2 {
		return b.Write()
	}
	if err := b.stage(); err != nil {
		return err
	}
	path := filepath.Join(b.dir, journalName)
	data, err := json.Marshal(journal{journalVersion, b.files})
	if err == nil {
		err = WriteFile(path, data, 0o600)
	}
	if err != nil {
		os.Remove(path)
		b.discard()
		return err
	}
	return finishJournal(b.dir)
}

// stage writes the new contents beside the old ones, and waits until they are on
// the disk. Where it fails, nothing is left.
func (b *Batch) stage() (err error) {
	defer func() {
		if err != nil {
			b.discard()
		}
	}()
	for i := range b.files {
		f := &b.files[i]
		path := filepath.Join(b.dir, f.Path)
		if err := fileio.MkdirAll(filepath.Dir(path)); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		temp, err := fileio.Stage(path, f.data, 0o600, len(b.files) <= syncEach)
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		f.Temp = filepath.Join(filepath.Dir(f.Path), filepath.Base(temp))
	}
	if len(b.files) <= syncEach {
		return nil
	}
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("writing below %s: %w", b.dir, os.NewSyscallError("syncfs", err))
	}
	return nil
}

// syncEach is how many files are synced one by one: more are with everything
// else that waits to be written to their file system.
const syncEach = 8

// discard removes what stage wrote.
func (b *Batch) discard() {
	for _, f := range b.files {
		if f.Temp != "" {
			os.Remove(filepath.Join(b.dir, f.Temp))
		}
	}
}

// settle puts the new contents in place.
func (b *Batch) settle() error {
	dirs := map[string]bool{}
	for _, f := range b.files {
		path := filepath.Join(b.dir, f.Path)
		if err := os.Rename(filepath.Join(b.dir, f.Temp), path); err != nil {
			b.discard()
			return err
		}
		dirs[filepath.Dir(path)] = true
	}
	for dir := range dirs {
		if err := fileio.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// journalName is the file that says what a Commit has begun. It is there for no
// longer than that takes, unless the Commit is cut short.
const (
	journalName    = "journal.json"
	journalVersion = "openshell.ai/journal/v1"
)

type journal struct {
	Version string   `json:"version"`
	Files   []staged `json:"files"`
}

// parseJournal also reads one from before there were versions, which is the list of its files.
func parseJournal(data []byte) ([]staged, error) {
	var files []staged
	if json.Unmarshal(data, &files) == nil {
		return files, nil
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, err
	}
	return j.Files, CheckVersion(j.Version, journalVersion)
}

// finishJournal does what is left of a Commit.
func finishJournal(dir string) error {
	path := filepath.Join(dir, journalName)
	data, err := ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	b := Batch{dir: dir}
	if err == nil {
		b.files, err = parseJournal(data)
	}
	if err != nil {
		return fmt.Errorf("finish what was begun: %s: %w", path, err)
	}
	dirs := map[string]bool{dir: true}
	for _, f := range b.files {
		if !filepath.IsLocal(f.Path) || !filepath.IsLocal(f.Temp) {
			return fmt.Errorf("finish what was begun: %s: names %q and %q", path, f.Path, f.Temp)
		}
		err := os.Rename(filepath.Join(dir, f.Temp), filepath.Join(dir, f.Path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // what is not there is in place already
			return fmt.Errorf("finish what was begun: %w: the next command tries again", err)
		}
		dirs[filepath.Dir(filepath.Join(dir, f.Path))] = true
	}
	for d := range dirs {
		if err := fileio.SyncDir(d); err != nil {
			return fmt.Errorf("finish what was begun: %w: the next command tries again", err)
		}
	}
	return os.Remove(path)
}

// Recover finishes what a Commit that was cut short had begun, and removes what
// writers that were killed left, unless a writer is at work. Who reads a policy's
// files without its lock calls it first.
func (s *Store) Recover(policyName string) error {
	if CheckName(policyName) != nil {
		return nil // whatever is read of it fails
	}
	if _, err := os.Lstat(filepath.Join(s.PolicyDir(policyName), journalName)); err == nil {
		unlock, err := s.Lock(policyName)
		if err != nil {
			return err
		}
		unlock()
	}
	if !s.hasLeftovers(policyName) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(s.PolicyDir(policyName), "lock"), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = s.RemoveLeftovers(policyName) // they are in nobody's way
	}
	return nil
}
