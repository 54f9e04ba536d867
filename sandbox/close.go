package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/config"
	"openshell.ai/openshell/netns"
)

// Close tears down what a deleted container leaves: it takes the container out
// of its sandbox, waits for the sandbox's end if it was the last, and clears up
// after a supervisor that died.
func Close(ctx context.Context, c *config.Config, root, id string) error {
	all, err := List(c.RunDir)
	if err != nil {
		return err
	}
	for _, info := range all {
		if !info.has(root, id) {
			continue
		}
		if info.Alive() {
			// The sandbox may end by itself meanwhile.
			_ = call(ctx, c.RunDir, info.ID, "detach", leaveRequest{root, id}, nil)
		}
		return awaitEnd(ctx, c.RunDir, info, root, id)
	}
	return nil
}

// awaitEnd waits until the sandbox no longer has the container.
func awaitEnd(ctx context.Context, runDir string, info Info, root, id string) error {
	if !info.Alive() {
		return abandon(runDir, info.ID, func(c Container) bool { return c.Root == root && c.ID == id })
	}
	return await(ctx, runDir, info, func(now Info) bool { return len(now.Containers) > 0 && !now.has(root, id) })
}

// await waits until a sandbox has gone, or enough holds for it. One whose
// supervisor dies meanwhile is removed unless it has containers.
func await(ctx context.Context, runDir string, info Info, enough func(Info) bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	dir := filepath.Join(sandboxesDir(runDir), info.ID)
	for {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if now, err := readInfo(dir); err == nil && enough(now) {
			return nil
		}
		if !info.Alive() {
			return abandon(runDir, info.ID, func(Container) bool { return false })
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sandbox %s does not end", info.ID)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (i Info) has(root, id string) bool {
	return slices.ContainsFunc(i.Containers, func(c Container) bool { return c.Root == root && c.ID == id })
}

func (i Info) populated() bool { return slices.ContainsFunc(i.Containers, Container.running) }

// unfinished is how old a directory is, at least, that no supervisor has said
// anything of: its maker was killed before it could.
const unfinished = time.Minute

// Sweep removes what supervisors that were killed left behind, once their
// containers are gone too.
func Sweep(runDir string) error {
	entries, err := os.ReadDir(sandboxesDir(runDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	known := map[string]bool{} // claims on mount points
	for _, e := range entries {
		info, err := readInfo(filepath.Join(sandboxesDir(runDir), e.Name()))
		for _, c := range info.Containers {
			known[c.Claim] = true
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			made, err := e.Info()
			if err != nil || time.Since(made.ModTime()) < unfinished {
				continue
			}
		case err != nil:
			return err
		case info.Alive() || info.populated():
			continue
		}
		if err := abandon(runDir, e.Name(), func(Container) bool { return false }); err != nil {
			return err
		}
	}
	return sweepMountPoints(runDir, known)
}

// abandon takes a dead supervisor's place: it takes the containers out of the
// sandbox that are gone by deleted, and where no other runs, removes what is
// left.
func abandon(runDir, id string, deleted func(Container) bool) error {
	// Two that clear up after the same supervisor must not meet the sandbox
	// that a third makes in between.
	unlock, err := lock(sandboxesDir(runDir), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(sandboxesDir(runDir), id)
	info, err := readInfo(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && info.Alive() {
		return nil
	}
	var left []Container
	for _, c := range info.Containers {
		if deleted(c) || !c.running() {
			if err := c.RemoveMountPoints(runDir); err != nil {
				return err
			}
		} else {
			left = append(left, c)
		}
	}
	if len(left) > 0 {
		info.Containers = left
		return writeInfo(dir, info)
	}
	if err := info.removeIngress(); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	return nil
}

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

// lockRun locks the run directory against other creators.
func lockRun(runDir string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	return lock(filepath.Join(runDir, "lock"), os.O_CREATE|os.O_RDWR)
}

func lock(path string, flags int) (unlock func(), err error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	return func() { f.Close() }, nil
}
