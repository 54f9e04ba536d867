// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Two containers may be made from one bundle directory at the same time, and its
// config.json is rewritten for each. So a container has a claim on its bundle, a
// file of the run directory, from before the bundle is read until the low-level
// runtime has read it: that is when the container exists, or its creator has ended.

func bundlesDir(runDir string) string { return filepath.Join(runDir, "bundles") }

// bundleClaim says who has a bundle.
type bundleClaim struct {
	Token   string     `json:"token"` // which no other claim has
	ID      string     `json:"id"`    // the container's
	Root    string     `json:"root"`
	Creator ProcessRef `json:"creator"`
}

// ClaimBundle waits until no other container is being made from the bundle of a
// container that is about to be created by a process, and keeps it from others.
func (c *Container) ClaimBundle(ctx context.Context, runDir string, creator int) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("claim bundle %s: %w", c.Bundle, err)
		}
	}()
	process, err := refTo(creator)
	if err != nil {
		return err
	}
	var at unix.Stat_t
	if unix.Stat(c.Bundle, &at) != nil {
		return nil // whoever reads it says why
	}
	name := fmt.Sprintf("%d-%d", at.Dev, at.Ino)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	own := bundleClaim{rand.Text(), c.ID, c.Root, process}
	for {
		if err := os.MkdirAll(bundlesDir(runDir), 0o700); err != nil {
			return err
		}
		holder, err := own.take(filepath.Join(bundlesDir(runDir), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever released the last claim has removed the directory
		}
		if err != nil {
			return err
		}
		if holder == own {
			c.BundleClaim = filepath.Join(name, own.Token)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container %s is being made from it: give each container a directory of its own",
				holder.ID)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// take claims a bundle unless another container has it. It returns who has it then.
func (b bundleClaim) take(path string) (holder bundleClaim, err error) {
	f, err := lockFile(path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return bundleClaim{}, err
	}
	defer f.Close()
	holder = readBundleClaim(f)
	if holder.current() {
		return holder, nil
	}
	data, err := json.Marshal(b)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	return b, err
}

// current reports whether the container is still being made.
func (b bundleClaim) current() bool {
	return b.Creator.alive() && !Container{ID: b.ID, Root: b.Root}.running()
}

// readBundleClaim returns the zero value where the file says nothing.
func readBundleClaim(f *os.File) (b bundleClaim) {
	data := make([]byte, 16<<10)
	n, _ := f.ReadAt(data, 0)
	if json.Unmarshal(data[:n], &b) != nil {
		return bundleClaim{}
	}
	return b
}

// ReleaseBundle gives the claim up.
func (c Container) ReleaseBundle(runDir string) {
	if name, token := filepath.Split(c.BundleClaim); name != "" {
		dropBundleClaim(filepath.Join(bundlesDir(runDir), name), func(b bundleClaim) bool { return b.Token == token })
	}
}

// sweepBundleClaims removes those that hold nothing any more.
func sweepBundleClaims(runDir string) error {
	entries, err := os.ReadDir(bundlesDir(runDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		dropBundleClaim(filepath.Join(bundlesDir(runDir), e.Name()), func(b bundleClaim) bool { return !b.current() })
	}
	return nil
}

func dropBundleClaim(path string, which func(bundleClaim) bool) {
	f, err := lockFile(path, os.O_RDWR)
	if err != nil {
		return // it is released
	}
	defer f.Close()
	if which(readBundleClaim(f)) {
		_ = os.Remove(path) // or else the next sweep does
		_ = os.Remove(filepath.Dir(path))
	}
}
