// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"openshell.ai/openshell/internal/confine/launch"
	"openshell.ai/openshell/internal/fileio"
)

// WriteDir writes the filter, as filter.Compile returns it, and the confinement
// into dir, which the runtime binds read-only at Dir. The launcher itself is put
// there by the runtime. Everything is readable by every user because
// openshell-init runs as the workload's.
func WriteDir(dir string, filter []byte, c Confinement) error {
	if err := launch.ValidateFilter(filter); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	// MkdirAll is subject to the umask and leaves an existing directory as it is.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	if err := fileio.Replace(filepath.Join(dir, FilterName), filter, 0o644); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	return WriteConfinement(dir, c)
}

// WriteConfinement replaces the confinement in dir, for every process that is
// started from then on: a reader sees either the old one or the new one.
func WriteConfinement(dir string, c Confinement) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	if len(data) > launch.MaxConfigSize {
		return fmt.Errorf("write confinement: the filesystem rules take %d bytes, at most %d fit: name fewer paths",
			len(data), launch.MaxConfigSize)
	}
	if err := fileio.Replace(filepath.Join(dir, ConfigName), data, 0o644); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	return nil
}
