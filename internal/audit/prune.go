// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Prune removes the log directories below root, the state directory, of sandboxes that
// nothing was recorded for in the last keepDays days. With keepDays under 1 everything is kept.
func Prune(root string, keepDays int, now time.Time) error {
	if keepDays < 1 {
		return nil
	}
	sandboxes := filepath.Join(root, "sandboxes")
	entries, err := os.ReadDir(sandboxes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pruning audit logs: %w", err)
	}
	oldest := now.AddDate(0, 0, -keepDays)
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(sandboxes, e.Name())
		if !e.IsDir() {
			continue
		}
		touched, err := lastTouched(dir)
		if err == nil && touched.Before(oldest) {
			err = os.RemoveAll(dir)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pruning audit logs: %w", err)
	}
	return nil
}

// lastTouched is the newest modification time in a directory; writing to a file does
// not show in the directory's own.
func lastTouched(dir string) (time.Time, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return time.Time{}, err
	}
	newest := info.ModTime()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return time.Time{}, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated meanwhile
		}
		if err != nil {
			return time.Time{}, err
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest, nil
}
