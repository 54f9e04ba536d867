// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// setting is a file below /proc/sys/net with its content: the kernel's settings
// of one device, which a device does not take along to another namespace
// (Documentation/networking/ip-sysctl.rst).
type setting struct {
	dir   string // above the device's own
	name  string
	value []byte
}

var settingDirs = []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"}

// readSettings reads what can be set of a device. The files below /proc/sys/net
// are those of the namespace that the reading thread is in.
func readSettings(n *Namespace, device string) ([]setting, error) {
	var out []setting
	err := n.Do(func() error {
		for _, dir := range settingDirs {
			entries, err := os.ReadDir(filepath.Join(dir, device))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the kernel has no IPv6
			}
			if err != nil {
				return err
			}
			for _, e := range entries {
				info, err := e.Info()
				if err != nil || info.Mode()&0o200 == 0 {
					continue
				}
				value, err := os.ReadFile(filepath.Join(dir, device, e.Name()))
				if err != nil {
					continue // a secret that was never set
				}
				out = append(out, setting{dir, e.Name(), value})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return out, nil
}

// writeSettings makes the settings of a device in a namespace the given ones.
func writeSettings(n *Namespace, device string, settings []setting) error {
	return n.Do(func() error {
		for _, s := range settings {
			path := filepath.Join(s.dir, device, s.name)
			now, err := os.ReadFile(path)
			if err == nil && bytes.Equal(now, s.value) {
				continue
			}
			if err := os.WriteFile(path, s.value, 0); err != nil {
				return fmt.Errorf("set %s: %w", path, err)
			}
		}
		return nil
	})
}
