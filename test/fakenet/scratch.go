// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// Short: an openshell run_dir in it must leave room for a socket whose path
	// has at most 107 bytes (unix(7)).
	scratchPattern = "fn*"
	scratchLock    = ".fakenet-lock"
)

// scratch is a temporary directory whose lock its process holds. A directory
// whose lock is free was left by a process that was killed, and goes.
type scratch struct {
	path string
	lock *os.File
}

func newScratch() (*scratch, error) {
	sweepScratch(os.TempDir())
	path, err := os.MkdirTemp("", scratchPattern)
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	// Locked before it has its name: a sweep must never find it free.
	unlocked := filepath.Join(path, scratchLock+".new")
	lock, err := os.OpenFile(unlocked, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(unlocked, filepath.Join(path, scratchLock))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), os.RemoveAll(path))
	}
	return &scratch{path: path, lock: lock}, nil
}

func (s *scratch) Close() error {
	return errors.Join(os.RemoveAll(s.path), s.lock.Close())
}

// sweepScratch removes what killed processes left. Failures are not this run's
// business: the directory stays for the next sweep.
func sweepScratch(parent string) {
	locks, err := filepath.Glob(filepath.Join(parent, scratchPattern, scratchLock))
	if err != nil {
		return
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(filepath.Dir(path))
		}
		lock.Close()
	}
}
