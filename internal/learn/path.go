// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"

	"openshell.ai/openshell/internal/learn/paths"
)

// maxPathBytes is what a request's path, or one of the filesystem, can be long.
const maxPathBytes = 4096

// generalised is a path without what identifies one thing or another, for grouping texts about it.
func generalised(path string) string {
	var one paths.Set
	if !one.Add("GET", path) {
		return Mask(path)
	}
	return one.Templates()[0].Path
}

// minSecretHex is the length of a key or a digest, rather than of an abbreviated commit.
const minSecretHex = 32

// Mask hides the segments of a path that may be secrets, for showing it.
func Mask(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if kind := paths.TypeOf(s); kind == paths.Token || kind == paths.Hex && len(s) >= minSecretHex {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}
