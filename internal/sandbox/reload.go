// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Reload makes the running sandboxes of a policy use what its files say now. It
// returns their ids, sorted. One that has ended, or is about to, lets nothing
// through any more, and is no error.
func Reload(ctx context.Context, runDir, policyName string) ([]string, error) {
	all, err := List(runDir)
	if err != nil {
		return nil, err
	}
	var (
		wg   sync.WaitGroup // one that hangs must not delay the others
		mu   sync.Mutex
		ids  []string
		errs []error
	)
	for _, info := range all {
		// One that cannot be read may be of this policy.
		if info.Policy != policyName && info.Broken == nil {
			continue
		}
		wg.Go(func() {
			reloaded, err := reload(ctx, runDir, info)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("sandbox %s: %w", info.ID, err))
			} else if reloaded && info.Broken == nil {
				ids = append(ids, info.ID)
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	return ids, errors.Join(errs...)
}

// reload makes one sandbox reload, if it can still let anything through.
func reload(ctx context.Context, runDir string, info Info) (bool, error) {
	dir := filepath.Join(sandboxesDir(runDir), info.ID)
	begun := time.Now()
	for {
		switch info.State() {
		case Dead, Ending:
			return false, nil
		case Unreadable:
			if !listens(dir) {
				return false, nil
			}
		}
		err := call(ctx, runDir, info, "reload", nil, nil)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, errEnding):
			return false, nil
		case !errors.Is(err, errUnreachable):
			return false, err
		}
		// Nobody listens: it starts, or has just ended.
		var there bool
		if info, there = look(dir); !there {
			return false, nil
		}
		patience := stoppedWait
		if s := info.State(); s == Restarting || s == Starting && !info.Supervisor.stopped() {
			patience = startTimeout
		}
		if ctx.Err() != nil || time.Since(begun) > patience {
			return false, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
