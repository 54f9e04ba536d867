package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
// there.
//
// Fields of features that openshell does not have yet are refused when their
// value asks for the feature: identity.required: false, metrics.listen and
// credentials_dir.
func Load(path string) (*Config, error) {
	named := true
	if path == "" {
		path = os.Getenv(PathVariable)
	}
	if path == "" {
		path, named = DefaultPath, false
	}
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		c := Default()
		c.file = path
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	c.file = path
	return c, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return data, nil
}
