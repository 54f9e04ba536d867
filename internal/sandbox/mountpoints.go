// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/rootfs"
)

// The directories that a container's root file system lacks for what the sandbox
// mounts are made here and not by the low-level runtime: what was made can then
// be told from what the workload puts in its place. Containers may share a root
// file system, and removing a directory takes away what is mounted there in
// other mount namespaces (rmdir(2)). So each container that uses such a directory
// has a claim on it, a file of the run directory, and the last one removes it.

// claim is what a container uses of what was made.
type claim struct {
	ID      string          `json:"id"`   // the container's
	Root    string          `json:"root"` // of its low-level runtime
	Rootfs  rootfs.Location `json:"rootfs"`
	Dirs    []rootfs.Dir    `json:"dirs"`    // outermost first
	Creator ProcessRef      `json:"creator"` // until there is a container
}

// claimsDir has a directory for each root file system, so that one that hangs keeps
// no other waiting.
func claimsDir(runDir string) string { return filepath.Join(runDir, "mountpoints") }

// MakeMountPoints makes directories in the root file system of a container that is
// about to be created by a process, and notes in c what has to be removed with
// the container. The paths have no links.
func (c *Container) MakeMountPoints(runDir string, root *rootfs.Root, creator int, paths []string) (err error) {
	if len(paths) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("make mount points: %w", err)
		}
	}()
	process, err := refTo(creator)
	if err != nil {
		return err
	}
	top, err := root.Lstat("/")
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%x-%x", top.Dev, top.Ino)
	all, err := openClaims(filepath.Join(claimsDir(runDir), key), true)
	if err != nil {
		return err
	}
	defer all.close()
	own := claim{ID: c.ID, Root: c.Root, Rootfs: c.Rootfs, Creator: process}
	defer func() {
		if err != nil {
			all.undo(own)
		}
	}()
	for _, p := range paths {
		dirs, err := root.MakeDirs(p)
		for _, d := range dirs {
			if d.Made || all.has(d) {
				own.Dirs = append(own.Dirs, d)
			}
		}
		if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
			continue // the low-level runtime can, or says why not
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	if len(own.Dirs) == 0 {
		return nil
	}
	name := rand.Text()
	data, err := json.Marshal(own)
	if err == nil {
		err = fileio.Replace(filepath.Join(all.dir, name), data, 0o600)
	}
	if err != nil {
		return err
	}
	c.Claim = filepath.Join(key, name)
	return nil
}

// RemoveMountPoints removes what was made for a container that has gone, but what
// others use.
func (c Container) RemoveMountPoints(runDir string) error {
	if c.Claim == "" {
		return nil
	}
	dir, name := filepath.Split(filepath.Join(claimsDir(runDir), c.Claim))
	return dropClaims(dir, func(n string, _ claim) bool { return n == name })
}

// sweepMountPoints removes what was made for containers of which no sandbox knows,
// and that have gone: their creators were killed, or their supervisors.
func sweepMountPoints(runDir string, known map[string]bool) error {
	files, err := filepath.Glob(filepath.Join(claimsDir(runDir), "*", "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		dir, name := filepath.Split(file)
		if known[filepath.Join(filepath.Base(dir), name)] {
			continue
		}
		err := dropClaims(dir, func(n string, c claim) bool {
			making := c.Creator.alive()
			return n == name && !making && !Container{ID: c.ID, Root: c.Root}.running()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func dropClaims(dir string, which func(name string, c claim) bool) error {
	all, err := openClaims(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else was faster
	}
	if err == nil {
		defer all.close()
		for name, c := range all.known {
			if !which(name, c) {
				continue
			}
			delete(all.known, name)
			all.undo(c)
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	if err != nil {
		return fmt.Errorf("remove mount points: %w", err)
	}
	return nil
}

// claims are those on one root file system, locked.
type claims struct {
	dir        string
	known      map[string]claim
	unreadable bool // there are others, which cannot be read
	file       *os.File
}

// maxTries is how often a directory is made anew that others remove meanwhile.
const maxTries = 1000

// openClaims locks a directory and reads what is in it. missing says that it is
// made where it is not there.
func openClaims(dir string, missing bool) (_ *claims, err error) {
	c := &claims{dir: filepath.Clean(dir), known: map[string]claim{}}
	for range maxTries { // whoever had it before may be removing it
		if missing {
			err = os.MkdirAll(dir, 0o700)
		}
		if err == nil {
			c.file, err = lockFile(c.dir, unix.O_DIRECTORY)
		}
		if err == nil || !missing || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		c.file.Close()
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // whoever wrote it had the lock, and was killed
			_ = os.Remove(filepath.Join(c.dir, e.Name()))
			continue
		}
		var one claim
		data, err := os.ReadFile(filepath.Join(c.dir, e.Name()))
		if err == nil {
			err = json.Unmarshal(data, &one)
		}
		if err != nil {
			c.unreadable = true
			continue
		}
		c.known[e.Name()] = one
	}
	return c, nil
}

// close unlocks the claims, and removes their directories after the last.
func (c *claims) close() {
	if os.Remove(c.dir) == nil { // or else there are more
		_ = os.Remove(filepath.Dir(c.dir))
	}
	c.file.Close()
}

func (c *claims) has(d rootfs.Dir) bool {
	for _, one := range c.known {
		if slices.ContainsFunc(one.Dirs, func(other rootfs.Dir) bool { return other.ID == d.ID }) {
			return true
		}
	}
	return false
}

// undo removes a claim's directories, deepest first, where nobody else has a claim
// and nothing else is in them.
func (c *claims) undo(gone claim) {
	root, err := gone.Rootfs.Open()
	if err != nil {
		return // with all that is in it
	}
	defer root.Close()
	for _, d := range slices.Backward(gone.Dirs) {
		if !c.unreadable && !c.has(d) {
			_ = root.Remove(d)
		}
	}
}
