package learn

import (
	"strings"

	"openshell.ai/openshell/learn/paths"
)

// maxPathBytes is what a canonical path, or one of the filesystem, can be long.
const maxPathBytes = 4096

// generalised is a path without what identifies one thing or another, for grouping texts about it.
func generalised(path string) string {
	var one paths.Set
	if !one.Add("GET", path) {
		return Mask(path)
	}
	return one.Templates()[0].Path
}

// Mask hides the segments of a path that may be secrets, for showing it.
func Mask(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if kind := classify(s); kind == segmentToken || kind == segmentHex && len(s) >= minSecretHex {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}
