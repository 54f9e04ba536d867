// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
)

// Lock takes the exclusive lock of a policy's state and waits for it as long as that
// takes. It excludes other processes and other callers in this one, and it is gone when
// its holder dies. Everything that changes a file of a policy holds it.
func (s *Store) Lock(policyName string) (unlock func(), err error) {
	unlock, err = s.lock(policyName, "lock")
	if err != nil {
		return nil, err
	}
	if err := finishJournal(s.PolicyDir(policyName)); err != nil {
		unlock()
		return nil, fmt.Errorf("policy %s: %w", policyName, err)
	}
	return unlock, nil
}

// LockDecisions takes the lock of those who decide on a policy's proposals, from before they look until what they
// decided is on disk. Runs go on writing proposals meanwhile. Who needs both locks takes this one first.
func (s *Store) LockDecisions(policyName string) (unlock func(), err error) {
	return s.lock(policyName, "decisions.lock")
}

func (s *Store) lock(policyName, name string) (unlock func(), err error) {
	if err := CheckName(policyName); err != nil {
		return nil, fmt.Errorf("locking a policy: %w", err)
	}
	path := filepath.Join(s.PolicyDir(policyName), name)
	for {
		f, err := lockFile(path)
		if err != nil {
			return nil, fmt.Errorf("locking policy %s: %w", policyName, err)
		}
		// Whoever held the lock may have removed the policy and its lock file with it:
		// then this lock excludes nobody.
		if current(f, path) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

func lockFile(path string) (*os.File, error) {
	if err := fileio.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// flock is flock(2), restarted when a signal interrupts it. The lock belongs to the open
// file, so two calls in one process exclude each other as well.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func current(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(held, named)
}

// RemoveLeftovers deletes the temporary files that writers who were killed left in a
// policy's directories. The caller holds the policy's lock, so no writer is at work.
func (s *Store) RemoveLeftovers(policyName string) error {
	var errs []error
	for _, dir := range s.dirs(policyName) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), fileio.TempPrefix) {
				errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Store) dirs(policyName string) []string {
	return []string{s.PolicyDir(policyName), s.proposalsDir(policyName), s.runsDir(policyName)}
}

// hasLeftovers reports whether there are temporary files, be it of a writer who is
// at work.
func (s *Store) hasLeftovers(policyName string) bool {
	for _, dir := range s.dirs(policyName) {
		entries, _ := os.ReadDir(dir)
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), fileio.TempPrefix) }) {
			return true
		}
	}
	return false
}
