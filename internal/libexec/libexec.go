// SPDX-License-Identifier: Apache-2.0

// Package libexec finds openshell's programs that only programs call.
package libexec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Places returns where a program may be, the first choice first: beside this
// one, or in a directory for such programs.
func Places(name string) []string {
	places := []string{filepath.Join("/usr/libexec/openshell", name)}
	self, err := os.Executable()
	if err != nil {
		return places
	}
	dir := filepath.Dir(self)
	return append([]string{filepath.Join(dir, name), filepath.Join(dir, "..", "libexec", "openshell", name)}, places...)
}

// Find returns a program's path.
func Find(name string) (string, error) {
	places := Places(name)
	for _, p := range places {
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return filepath.Clean(p), nil
		}
	}
	return "", fmt.Errorf("%s is in none of its places: install it as one of %s", name, strings.Join(places, ", "))
}
