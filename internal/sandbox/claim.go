// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/netns"
)

// Containers of a pod are created at the same time; only one of them may find
// that their namespace has no sandbox yet. It says so in a file of the
// namespace's until there is one. The file is locked only while it is looked at:
// whoever waits for a supervisor holds no lock.

func namespacesDir(runDir string) string { return filepath.Join(runDir, "namespaces") }

func claimPath(runDir string, ns netns.ID) string {
	return filepath.Join(namespacesDir(runDir), fmt.Sprintf("%d-%d", ns.Dev, ns.Ino))
}

// claimNamespace finds the sandbox of a namespace, or claims the right to make
// it. Where neither is possible, since another process has claimed it, both are
// nil: then the caller has to ask again.
func claimNamespace(runDir string, ns netns.ID) (*Info, *namespaceClaim, error) {
	if err := os.MkdirAll(namespacesDir(runDir), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make run directory: %w", err)
	}
	path := claimPath(runDir, ns)
	f, err := lockFile(path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, found, err := sharing(runDir, ns)
	holder := readClaim(f)
	if err != nil || found {
		if !holder.alive() {
			os.Remove(path) // made here, only to look
		}
		return &info, nil, err
	}
	if holder.alive() {
		return nil, nil, nil
	}
	self, err := thisProcess()
	if err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(self)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("claim network namespace: %w", err)
	}
	return nil, &namespaceClaim{path}, nil
}

// namespaceClaim is the right to make a namespace's sandbox.
type namespaceClaim struct{ path string }

// release gives the right back. There is a sandbox by now, or making it failed.
func (c *namespaceClaim) release() {
	if f, err := lockFile(c.path, os.O_RDWR); err == nil {
		os.Remove(c.path)
		f.Close()
	}
}

// readClaim returns the process that has a claim; none where the file says none.
func readClaim(f *os.File) (s ProcessRef) {
	var buf [256]byte
	n, _ := f.ReadAt(buf[:], 0)
	if json.Unmarshal(buf[:n], &s) != nil {
		return ProcessRef{}
	}
	return s
}

// sweepNamespaceClaims removes claims of processes that were killed.
func sweepNamespaceClaims(runDir string) error {
	entries, err := os.ReadDir(namespacesDir(runDir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	for _, e := range entries {
		path := filepath.Join(namespacesDir(runDir), e.Name())
		f, err := lockFile(path, os.O_RDWR)
		if err != nil {
			continue // released meanwhile
		}
		if holder := readClaim(f); !holder.alive() {
			os.Remove(path)
		}
		f.Close()
	}
	return nil
}

// lockWait bounds the wait for a lock: nobody holds one for long, unless he is
// stopped.
const lockWait = 2 * time.Second

// lockDirectory locks a sandbox's directory against others that would clear up.
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := lockFile(dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lockFile opens and locks a file (flock(2)). The lock is of what has the name
// when it is taken.
func lockFile(path string, flags int) (*os.File, error) {
	for deadline := time.Now().Add(lockWait); ; {
		f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			held, herr := f.Stat()
			named, nerr := os.Lstat(path)
			if herr == nil && nerr == nil && os.SameFile(held, named) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("lock %s: another process has held it for %s", path, lockWait)
		}
		time.Sleep(time.Millisecond)
	}
}

// share joins the sandbox of a namespace, or makes it.
func share(ctx context.Context, runDir string, outer netns.ID, join func(Info) (Ready, error),
	create func() (Ready, error), path string) (Ready, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		info, claim, err := claimNamespace(runDir, outer)
		switch {
		case err != nil:
			return Ready{}, err
		case claim != nil:
			defer claim.release()
			return create()
		case info != nil && info.State() != Starting && info.State() != Restarting:
			ready, err := join(*info)
			if !errors.Is(err, errEnding) && !errors.Is(err, errUnreachable) {
				return ready, err
			}
			if info.InnerID == outer {
				// A room without a door: no new sandbox could reach anything from it.
				return Ready{}, fmt.Errorf("network namespace %s is that of sandbox %s, which cannot be joined: %w", path,
					info.ID, err)
			}
			// Its last container went while this one came.
			if err := await(ctx, runDir, *info, func(Info) bool { return false }); err != nil {
				return Ready{}, fmt.Errorf("sandbox %s of network namespace %s: %w", info.ID, path, err)
			}
		case info != nil && info.Supervisor.stopped():
			return Ready{}, fmt.Errorf("sandbox %s of network namespace %s: %w", info.ID, path,
				&StoppedError{info.Supervisor.PID})
		}
		select {
		case <-ctx.Done():
			return Ready{}, fmt.Errorf("network namespace %s: another container's sandbox is not ready after %s", path,
				startTimeout)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
