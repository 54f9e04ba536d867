// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"fmt"
	"strings"
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
	if len(key) > maxQuoted {
		return "" // bounds the work below; no typing error is that long
	}
	key = strings.ReplaceAll(strings.ToLower(key), "_", "-")
	best, distance := "", len(key)
	for _, k := range keys {
		if d := editDistance(key, k); d < distance {
			best, distance = k, d
		}
	}
	if distance > max(2, (len(best)-len(Prefix))/3) {
		return ""
	}
	return best
}

// editDistance is the Levenshtein distance of a and b in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
