package learn

import (
	"strings"
)

// Bounds of one proposal's rule. What exceeds them is not left out: it is
// generalised further.
const (
	maxPatterns     = 512      // paths for a method
	maxPatternBytes = 64 << 10 // and their length together
	maxMethods      = 16
	maxPathBytes    = 4096 // what a canonical path can be long
)

const (
	anyMethod = "*"
	anyPath   = "**"
)

// GeneralisePaths returns the patterns, in the language of a rule's path, that cover the
// paths: segments that are identifiers become `*`, so that the next one of a kind is covered too.
// The first segment stays unless it is opaque. The result is sorted and does not
// depend on the order of the paths. Paths that no pattern can stand for literally are left out.
func GeneralisePaths(samples []string) []string {
	set := newPathSet()
	for _, s := range samples {
		if p, ok := pattern(s); ok {
			set.add(p)
		}
	}
	return set.sorted()
}

// pattern generalises one canonical path. It is false for a path that has no pattern of its
// own: one with a character that means something in a pattern, or that no canonical path has.
func pattern(path string) (string, bool) {
	if !literal(path) {
		return "", false
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		segments[i] = generalise(s, i == 0)
	}
	return "/" + strings.Join(segments, "/"), true
}

// literal reports whether a pattern that is equal to the path matches the path alone.
func literal(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= maxPathBytes &&
		all(path, func(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(`*?[]{}\`, c) < 0 })
}

// generalise keeps numbers and dates that come first: /1/, /2010-04-01/ are versions of an API.
func generalise(s string, first bool) string {
	switch kind := classify(s); {
	case kind == segmentStatic:
	case first && (kind == segmentInteger || kind == segmentDate || kind == segmentHex && len(s) < 2*minHex):
	default:
		return "*"
	}
	// An identifier may have a suffix: 42.json, <uuid>.tar
	if i := strings.LastIndexByte(s, '.'); i > 0 && !first && len(s)-i <= len(".jsonl") {
		if stem, suffix := s[:i], s[i+1:]; all(suffix, isLower) && suffix != "" && classify(stem) != segmentStatic {
			return "*." + suffix
		}
	}
	return s
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
