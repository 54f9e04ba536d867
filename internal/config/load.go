// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"openshell.ai/openshell/internal/safefile"
)

const (
	// DefaultPath is read when neither the caller nor the environment names a file.
	DefaultPath = "/etc/openshell/config.yaml"
	// PathVariable names the file in the environment.
	PathVariable = "OPENSHELL_CONFIG"
)

// maxSize bounds what is read of the file, in bytes.
const maxSize = 1 << 20

// Load reads the configuration from path; the empty path means the file named by
// OPENSHELL_CONFIG, else DefaultPath. Only DefaultPath may be missing, which
// leaves every field at its default: a file that was asked for by name must be
// there. The file, state_dir and run_dir must be such that only root can change
// them.
//
// Fields of features that openshell does not have yet are refused when their
// value asks for the feature: identity.required: false and metrics.listen.
func Load(path string) (*Config, error) {
	named := true
	if path == "" {
		path = os.Getenv(PathVariable)
	}
	if path == "" {
		path, named = DefaultPath, false
	}
	data, err := safefile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) && !named {
		data, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := c.checkDirectories(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c.file = path
	return c, nil
}

// checkDirectories refuses directories of openshell's own that others than root
// can write to: they could approve rules, or pose as a sandbox.
func (c *Config) checkDirectories() error {
	for _, d := range []struct{ field, path string }{{"state_dir", c.StateDir}, {"run_dir", c.RunDir}} {
		if err := safefile.CheckDir(d.path); err != nil {
			return fmt.Errorf("%s: %w", d.field, err)
		}
	}
	return nil
}
