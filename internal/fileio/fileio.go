// SPDX-License-Identifier: Apache-2.0

// Package fileio owns how a file is read, no more of it than is wanted, and how it is replaced: a
// reader, or a crash at any instant, sees the old content or the new, never a part.
package fileio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTooLarge is the error for what has more bytes than are wanted.
var ErrTooLarge = errors.New("larger")

// TooLarge is the ErrTooLarge that names the limit.
func TooLarge(limit int64) error { return fmt.Errorf("%w than %d bytes", ErrTooLarge, limit) }

// ReadAll reads to the end, which must come after at most limit bytes.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = TooLarge(limit)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := ReadAll(f, limit)
	if errors.Is(err, ErrTooLarge) {
		err = &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, err
}

// TempPrefix starts the name of a file that is being written, and that a writer that is killed leaves.
const TempPrefix = ".tmp-"

// Write replaces a file. When it returns nil the new content has reached the disk. The directory
// must exist.
func Write(path string, data []byte, mode fs.FileMode) error {
	temp, err := Stage(path, data, mode, true)
	if err == nil {
		err = rename(temp, path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	return wrap(path, err)
}

// Replace is Write for files that need not outlive the machine's boot, such as those of the run
// directory: nothing waits for a disk.
func Replace(path string, data []byte, mode fs.FileMode) error {
	temp, err := Stage(path, data, mode, false)
	if err == nil {
		err = rename(temp, path)
	}
	return wrap(path, err)
}

// Update is Replace for a file of somebody else's: it keeps its mode and its owner.
func Update(path string, data []byte) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	temp, err := Stage(path, data, fs.FileMode(st.Mode&0o777), false)
	if err != nil {
		return wrap(path, err)
	}
	if err := os.Chown(temp, int(st.Uid), int(st.Gid)); err != nil {
		os.Remove(temp)
		return wrap(path, err)
	}
	return wrap(path, rename(temp, path))
}

func wrap(path string, err error) error {
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func rename(temp, path string) error {
	err := os.Rename(temp, path)
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// Stage writes a file beside path that is to take its place, and returns its name. With sync, its
// content has reached the disk.
func Stage(path string, data []byte, mode fs.FileMode, sync bool) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	if sync {
		if err := f.Sync(); err != nil {
			return "", err
		}
	}
	return f.Name(), f.Close()
}

// MkdirAll creates a directory and what is missing above it with mode 0700, each recorded on disk.
func MkdirAll(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	if err := MkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// SyncDir returns when a directory's entries have reached the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
