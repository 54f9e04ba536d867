// SPDX-License-Identifier: Apache-2.0

// Package validname owns what policies, sandboxes, proposals and credentials may be called.
package validname

import (
	"errors"
	"fmt"
)

// maxName keeps a name with any suffix that openshell gives it well below NAME_MAX.
const maxName = 128

// Check returns why s is no name: [A-Za-z0-9][A-Za-z0-9_.-]{0,127}. A name is a single path
// component that is neither hidden nor a step upwards, and prints as it is.
func Check(s string) error {
	switch {
	case s == "":
		return errors.New("a name must not be empty")
	case len(s) > maxName:
		return fmt.Errorf("a name has at most %d characters, this has %d", maxName, len(s))
	case !isAlphanumeric(s[0]):
		return errors.New("a name must start with a letter or digit (A-Z a-z 0-9)")
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '.' && c != '-' {
			return errors.New("a name has only letters, digits, '_', '.' and '-'")
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
