// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A sandbox's directory appears under its name with its sandbox.json in it, and
// goes from there at once. What is being made or removed has a name that no
// sandbox can have, so that a kill at any step leaves nothing in the way of the
// next sandbox of that name.
const (
	newPrefix = ".new-" // with the maker's pid and start time
	oldPrefix = ".old-"
)

func sandboxesDir(runDir string) string { return filepath.Join(runDir, "sandboxes") }

// thisProcess is this process as the supervisor of a sandbox.
func thisProcess() (ProcessRef, error) { return refTo(os.Getpid()) }

// makeDirectory makes a sandbox's directory with what it says of itself. That
// fails where there is one of that name.
func makeDirectory(runDir string, info Info) (dir string, err error) {
	all := sandboxesDir(runDir)
	if err := os.MkdirAll(all, 0o700); err != nil {
		return "", fmt.Errorf("make run directory: %w", err)
	}
	made, err := os.MkdirTemp(all, fmt.Sprintf("%s%d-%d-", newPrefix, info.Supervisor.PID, info.Supervisor.StartTime))
	if err != nil {
		return "", fmt.Errorf("make sandbox directory: %w", err)
	}
	dir = filepath.Join(all, info.ID)
	if err = writeInfo(made, info); err == nil {
		if err = unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE); err != nil {
			err = fmt.Errorf("make sandbox directory %s: %w", dir, err)
		}
	}
	if err != nil {
		os.RemoveAll(made)
		return "", err
	}
	return dir, nil
}

// removeDirectory removes a sandbox's directory. Its name is free at once.
func removeDirectory(dir string) error {
	all := filepath.Dir(dir)
	old, err := os.MkdirTemp(all, oldPrefix+filepath.Base(dir)+"-*")
	if err != nil {
		return fmt.Errorf("remove sandbox directory: %w", err)
	}
	// It takes the place of the empty directory.
	err = unix.Rename(dir, old)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, os.RemoveAll(old)); err != nil {
		return fmt.Errorf("remove sandbox directory %s: %w", dir, err)
	}
	return nil
}

// removeRemains removes what is left of directories of that name, with whoever
// else is at it.
func removeRemains(dir string) error {
	entries, err := os.ReadDir(filepath.Dir(dir))
	errs := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), oldPrefix+filepath.Base(dir)+"-") {
			errs = append(errs, os.RemoveAll(filepath.Join(filepath.Dir(dir), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// sweepRemains removes what a kill left of a directory that was being made or
// removed. It reports whether name is that of one.
func sweepRemains(runDir, name string) (bool, error) {
	path := filepath.Join(sandboxesDir(runDir), name)
	if strings.HasPrefix(name, oldPrefix) {
		return true, os.RemoveAll(path) // also while somebody else does
	}
	maker, ok := strings.CutPrefix(name, newPrefix)
	if !ok {
		return strings.HasPrefix(name, "."), nil
	}
	parts := strings.SplitN(maker, "-", 3)
	if len(parts) == 3 {
		pid, err := strconv.Atoi(parts[0])
		started, serr := strconv.ParseUint(parts[1], 10, 64)
		if err == nil && serr == nil && alive(pid, started) {
			return true, nil // it is at it
		}
	}
	return true, os.RemoveAll(path)
}
