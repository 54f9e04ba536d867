// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"fmt"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/usertext"
)

// unknownKey is the error for a key that openshell does not know. It is an error
// and not a warning because the user relies on what the key was meant to do.
func unknownKey(key string) error {
	if best := closest(key); best != "" {
		return fmt.Errorf("unknown annotation %s: did you mean %s?", quote(key), best)
	}
	return fmt.Errorf("unknown annotation %s: use one of %s", quote(key), strings.Join(keys, ", "))
}

// closest returns the known key that a typing error would most likely turn into
// key, or "" when none is near. Case and the choice of '_' or '-' do not count.
func closest(key string) string {
	return usertext.Closest(strings.ReplaceAll(strings.ToLower(key), "_", "-"), slices.Values(keys),
		func(known string) int { return max(2, (len(known)-len(Prefix))/3) })
}
