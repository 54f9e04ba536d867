// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Evidence that cannot be written when a sandbox ends is kept by its supervisor,
// which writes it when there is room again. The sandbox gives up its name for
// that, so that the next one can have it: it is listed, ending, under its name
// with asideMark and the supervisor's process behind it. No id has such a name.
const asideMark = "~"

func asideName(info Info) string {
	return fmt.Sprintf("%s%s%d", info.ID, asideMark, info.Supervisor.PID)
}

// names reports whether a directory's name is the sandbox's.
func (i Info) names(name string) bool {
	id, _, _ := strings.Cut(name, asideMark)
	return i.ID != "" && i.ID == id
}

// stepAside gives the sandbox's name up.
func (s *Sandbox) stepAside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = nil
	dir := filepath.Join(filepath.Dir(s.dir), asideName(s.info))
	err := s.writeInfo()
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, s.dir, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		slog.Error("sandbox directory", "error", err)
		return // the name is free once everything is written
	}
	s.dir = dir
}

// UnwrittenError says that what a sandbox learned is not on the disk yet.
type UnwrittenError struct {
	Sandbox string
	Why     string
}

func (e *UnwrittenError) Error() string {
	return fmt.Sprintf("sandbox %s has ended, but what it learned is not written: %s: its supervisor tries again for ten minutes", e.Sandbox, e.Why)
}

// aside returns an UnwrittenError where a sandbox has ended and its supervisor
// still has evidence.
func (i Info) aside(runDir string) error {
	now, err := readInfo(filepath.Join(sandboxesDir(runDir), asideName(i)))
	if err != nil || !now.sameAs(i) || now.State() != Ending {
		return nil
	}
	why := now.Health.Unwritable
	if why == "" {
		why = "there is much of it"
	}
	return &UnwrittenError{Sandbox: i.ID, Why: why}
}

// Settle has the sandboxes of a policy write down what they have seen, and waits
// for those that end. The error names those whose evidence is incomplete.
func Settle(ctx context.Context, runDir, policyName string) error {
	all, err := List(runDir)
	if err != nil {
		return err
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, info := range all {
		if info.Policy != policyName {
			continue
		}
		wg.Go(func() {
			if err := settleOne(ctx, runDir, info); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("sandbox %s: %w", info.ID, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func settleOne(ctx context.Context, runDir string, info Info) error {
	if info.State() == Running {
		var health Health
		err := call(ctx, runDir, info, "flush", nil, &health)
		switch {
		case errors.Is(err, errUnsupported): // an earlier version writes soon
			return nil
		case errors.Is(err, errEnding) || errors.Is(err, errUnreachable):
		case err != nil:
			return err
		case health.Unwritable != "":
			return errors.New(health.Warning())
		default:
			return nil
		}
	}
	now, there := look(filepath.Join(sandboxesDir(runDir), info.ID))
	if there && now.sameAs(info) && now.State() != Ending {
		return nil // Reload says so of one that cannot be reached
	}
	// It ends, and its last evidence is on its way to the disk.
	if info.Health.Unwritable == "" {
		err := await(ctx, runDir, info, func(now Info) bool { return now.Health.Unwritable != "" })
		if err != nil {
			return err
		}
	}
	if now, there = look(filepath.Join(sandboxesDir(runDir), info.ID)); there && now.sameAs(info) &&
		now.Health.Unwritable != "" {
		return errors.New(now.Health.Warning())
	}
	return info.aside(runDir)
}

// flush has the learner write what waits.
func (s *Sandbox) flush(ctx context.Context) (Health, error) {
	_ = s.learner.Flush(ctx) // what failed is in its health
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info.Health, nil
}
