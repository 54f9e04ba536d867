// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/netns"
)

// Close tears down what a deleted container leaves: it takes the container out
// of its sandbox, waits for the sandbox's end if it was the last, and clears up
// after a supervisor that died. An UnwrittenError says that all this is done, but
// not everything that was learned could be written.
func Close(ctx context.Context, c *config.Config, root, id string) error {
	return takeDown(ctx, c.RunDir, root, id, false)
}

// ForceClose is Close that ends a supervisor which is stopped or hangs. Whatever
// else is in its sandbox reaches nothing any more.
func ForceClose(ctx context.Context, c *config.Config, root, id string) error {
	return takeDown(ctx, c.RunDir, root, id, true)
}

func takeDown(ctx context.Context, runDir, root, id string, force bool) error {
	all, err := List(runDir)
	if err != nil {
		return err
	}
	for _, info := range all {
		if info.ID == IDFor(root, id) && info.State() == Ending && len(info.Containers) == 0 {
			return info.aside(runDir) // it has ended by itself
		}
		// Of one that cannot be read only the first container is known.
		if !info.has(root, id) && (info.Broken == nil || info.ID != IDFor(root, id)) {
			continue
		}
		return info.close(ctx, runDir, root, id, force)
	}
	return nil
}

func (i Info) close(ctx context.Context, runDir, root, id string, force bool) error {
	deleted := func(c Container) bool { return c.Root == root && c.ID == id }
	switch i.State() {
	case Dead:
		return abandon(runDir, i.ID, deleted)
	case Unreadable:
		if !listens(filepath.Join(sandboxesDir(runDir), i.ID)) {
			return abandon(runDir, i.ID, deleted)
		}
	}
	// The sandbox may end by itself meanwhile.
	err := call(ctx, runDir, i, "detach", leaveRequest{root, id}, nil)
	if err == nil || errors.Is(err, errUnreachable) || errors.Is(err, errEnding) {
		err = await(ctx, runDir, i, func(now Info) bool {
			return now.Broken == nil && len(now.Containers) > 0 &&
				!now.has(root, id)
		})
	}
	if err != nil && force {
		if err := i.end(runDir); err != nil {
			return err
		}
		return abandon(runDir, i.ID, deleted)
	}
	if err != nil {
		return fmt.Errorf("sandbox %s: %w", i.ID, err)
	}
	return i.aside(runDir)
}

// end ends a sandbox's keeper and supervisor, whoever that is by now.
func (i Info) end(runDir string) error {
	if err := i.Keeper.kill(); err != nil {
		return err
	}
	if now, there := look(filepath.Join(sandboxesDir(runDir), i.ID)); there && now.sameAs(i) {
		i = now
	}
	return errors.Join(i.Keeper.kill(), i.Supervisor.kill())
}

// await waits until a sandbox has gone, or enough holds for it. One whose
// supervisor dies meanwhile is removed unless it has containers.
func await(ctx context.Context, runDir string, info Info, enough func(Info) bool) error {
	ctx, cancel := attend(ctx, info.Supervisor)
	defer cancel()
	dir := filepath.Join(sandboxesDir(runDir), info.ID)
	for {
		now, there := look(dir)
		switch {
		case !there || now.Broken == nil && info.Broken == nil && !now.sameAs(info): // another has the name by now
			return removeRemains(dir)
		case enough(now):
			return nil
		case now.State() == Dead || now.State() == Unreadable && !listens(dir):
			return abandon(runDir, info.ID, func(Container) bool { return false })
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return errors.New("it does not end")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (i Info) has(root, id string) bool {
	return slices.ContainsFunc(i.Containers, func(c Container) bool { return c.Root == root && c.ID == id })
}

func (i Info) populated() bool { return slices.ContainsFunc(i.Containers, Container.running) }

// unfinished is how old a directory is, at least, of which nothing is known
// since its file is missing: supervisors of earlier versions made it before the
// file, and removed the file before it.
const unfinished = time.Minute

// Sweep removes what supervisors that were killed left behind, once their
// containers are gone too. One that cannot be cleared up after is in nobody's
// way: the error is for the record.
func Sweep(runDir string) error {
	entries, err := os.ReadDir(sandboxesDir(runDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	var errs []error
	inUse := map[string]bool{} // claims on mount points
	for _, e := range entries {
		if remains, err := sweepRemains(runDir, e.Name()); remains {
			errs = append(errs, err)
			continue
		}
		info, there := look(filepath.Join(sandboxesDir(runDir), e.Name()))
		for _, c := range info.Containers {
			inUse[c.Claim] = true
		}
		if there && info.deserted(e) {
			errs = append(errs, abandon(runDir, e.Name(), func(Container) bool { return false }))
		}
	}
	return errors.Join(append(errs, sweepNamespaceClaims(runDir), sweepBundleClaims(runDir),
		sweepMountPoints(runDir, inUse))...)
}

// deserted reports whether a sandbox's directory is to be swept.
func (i Info) deserted(e fs.DirEntry) bool {
	switch i.State() {
	case Dead:
		return !i.populated()
	case Unreadable: // a damaged file is for the operator to look at, see Clean
		made, err := e.Info()
		return errors.Is(i.Broken, fs.ErrNotExist) && err == nil && time.Since(made.ModTime()) >= unfinished
	}
	return false
}

// Clean is Sweep that also removes sandboxes of which nothing can be read and
// that have no supervisor. It returns their ids.
func Clean(runDir string) (removed []string, err error) {
	errs := []error{Sweep(runDir)}
	all, err := List(runDir)
	if err != nil {
		return nil, err
	}
	for _, info := range all {
		dir := filepath.Join(sandboxesDir(runDir), info.ID)
		if info.Broken == nil {
			continue
		}
		if err := abandon(runDir, info.ID, func(Container) bool { return true }); err != nil {
			errs = append(errs, err)
		} else if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			removed = append(removed, info.ID)
		} else {
			errs = append(errs, fmt.Errorf("sandbox %s: is left, since its supervisor is at work", info.ID))
		}
	}
	return removed, errors.Join(errs...)
}

// abandon takes a dead supervisor's place: it takes the containers out of the
// sandbox that are gone by deleted, and where no other runs, removes what is
// left.
func abandon(runDir, id string, deleted func(Container) bool) error {
	dir := filepath.Join(sandboxesDir(runDir), id)
	// Two that clear up after the same supervisor must not meet the sandbox
	// that a third makes in between.
	unlock, err := lockDirectory(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	info, there := look(dir)
	switch {
	case !there:
		return nil
	case info.Broken != nil:
		if listens(dir) {
			return nil
		}
		return removeDirectory(dir)
	case info.State() != Dead:
		return nil
	}
	var left []Container
	var errs []error
	for _, c := range info.Containers {
		if deleted(c) || !c.running() {
			errs = append(errs, c.RemoveMountPoints(runDir))
		} else {
			left = append(left, c)
		}
	}
	if len(left) > 0 {
		info.Containers = left
		return errors.Join(append(errs, writeInfo(dir, info))...)
	}
	if err := info.removeIngress(); err != nil {
		return err
	}
	if err := info.removeCgroup(); err != nil {
		slog.Warn("what a dead supervisor left", "error", err) // a process may still be leaving it
	}
	if err := errors.Join(append(errs, removeDirectory(dir))...); err != nil {
		return &LeftoverError{dir, err}
	}
	return nil
}

// LeftoverError says that a sandbox and its containers are gone, but not its
// directory: the run directory may be read-only. The next sweep tries again.
type LeftoverError struct {
	Dir string
	Err error
}

func (e *LeftoverError) Error() string {
	return fmt.Sprintf("%s is left: %s", e.Dir, strings.ReplaceAll(e.Err.Error(), "\n", "; "))
}

// Unwrap returns why.
func (e *LeftoverError) Unwrap() error { return e.Err }

// removeIngress takes a dead sandbox's rules out of the engine's namespace, where
// that is still there.
func (i Info) removeIngress() error {
	if !i.Shared {
		return nil
	}
	outer, err := netns.Open(i.OuterPath)
	if err != nil {
		return nil // the rules went with it
	}
	defer outer.Close()
	if outer.ID() != i.Outer {
		return nil // another has the path by now
	}
	return netns.RemoveIngress(outer)
}
