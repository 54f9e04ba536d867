// SPDX-License-Identifier: Apache-2.0

package paths

import "strings"

// Types that a segment, or the main part of one, can be told to be by its form alone. They
// are written in braces, which no path in a rule's spelling has.
const (
	typeInteger = "{int}"     // 42
	typeDate    = "{date}"    // 2026-08-01, 2026-08, 2026-08-01T10:00:00Z
	typeUUID    = "{uuid}"    // 550e8400-e29b-41d4-a716-446655440000
	typeHex     = "{hex}"     // a commit, a digest, an object id
	typeToken   = "{token}"   // long and without a pattern: an opaque id, or a secret
	typeEmail   = "{email}"   // a@example.org
	typeIP      = "{ip}"      // 192.0.2.1, 2001:db8::1
	typeVersion = "{version}" // 1.26.4, v2.0.0-rc.1: of a package; v1 is an API's
	typeLong    = "{long}"    // longer than maxSegment
	typeName    = "{name}"    // a name: only what was seen together says so
	typeAny     = "{any}"     // anything: a bound was exceeded
	typeRest    = "{rest}"    // any number of segments, below maxDepth
)

const (
	minHex   = 8 // shorter ones are too often words and names
	minToken = 16
	// maxSegment is a length in bytes that no name has.
	maxSegment = 128
	// maxDepth is the number of segments that are told apart.
	maxDepth = 32
)

// typed replaces what is an identifier by its form alone. A literal suffix (42.json) and the
// literal prefix of a token (cus_9s6XKzkNRiz8i3) are kept, and a package's name beside its version
// (greeting-1.0.0.tgz).
func typed(s string) string {
	if t := typeOf(s); t != "" && t != typeToken {
		return t
	}
	if i := strings.LastIndexByte(s, '.'); i > 0 && len(s)-i <= len(".jsonl") && i+1 < len(s) && all(s[i+1:], isLower) {
		if t := typeOf(s[:i]); t != "" {
			return t + s[i:]
		}
	}
	if i := strings.IndexAny(s, "_-"); 0 < i && i <= maxPrefix && all(s[:i], isLower) {
		switch t := typeOf(s[i+1:]); {
		case t == typeHex, t == typeToken, t == typeUUID, t == typeInteger && len(s)-i > minNumber:
			return s[:i+1] + t
		}
	}
	if isToken(s) {
		return typeToken
	}
	return packageFile(s)
}

// maxPrefix is the greatest length of a token's prefix: "cus", "proj", "deployment".
const maxPrefix = 12

// minNumber is the number of digits after a prefix that are an id: order-10024, but utf-8, sha-256.
const minNumber = 4

// typeOf is the type of a whole segment, or empty.
func typeOf(s string) string {
	switch {
	case s == "":
		return ""
	case len(s) > maxSegment:
		return typeLong
	case allDigits(s):
		return typeInteger
	case isDate(s):
		return typeDate
	case isUUID(s):
		return typeUUID
	case isHex(s):
		return typeHex
	case isEmail(s):
		return typeEmail
	case isIP(s):
		return typeIP
	case isRelease(s):
		return typeVersion
	case isToken(s):
		return typeToken
	}
	return ""
}

// isTyped reports whether part of a pattern's segment is a type.
func isTyped(s string) bool { return strings.IndexByte(s, '{') >= 0 }

var archives = []string{".whl", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".gem", ".crate",
	".jar", ".deb", ".rpm", ".apk"}

// packageFile replaces the version in the name of a package's file: numpy-1.26.4-cp312-none-any.whl,
// libc6_2.36-9+deb12u4_amd64.deb. Two numbers are a version only in an archive's name.
func packageFile(s string) string {
	name, need := s, 3
	for _, ext := range archives {
		if cut, ok := strings.CutSuffix(s, ext); ok {
			name, need = cut, 2
		}
	}
	for i := 1; i < len(name); i++ {
		if name[i-1] != '-' && name[i-1] != '_' || i == 1 {
			continue
		}
		end := len(name)
		ends := "-_"
		if name[i-1] == '_' {
			ends = "_" // a Debian version has a revision after a hyphen
		}
		if n := strings.IndexAny(name[i:], ends); n >= 0 {
			end = i + n
		}
		if numbers(name[i:end]) >= need {
			return s[:i] + typeVersion + s[end:]
		}
	}
	return s
}

// numbers counts the numbers, with dots between them, that a version begins with.
func numbers(version string) int {
	n := 0
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		digits := 0
		for digits < len(part) && isDigit(part[digits]) {
			digits++
		}
		if digits == 0 || digits > 8 {
			break
		}
		n++
		if digits < len(part) {
			break
		}
	}
	return n
}

// shards replaces the directories that files are spread over by the beginning of their digest:
// /packages/44/8d/<60 digits>/. One alone may be a name: /de/<32 digits>.
func shards(segments, original []string) {
	for i, s := range original {
		if len(s) < 2*minToken || segments[i] != typeHex {
			continue
		}
		first := i
		for first > 0 && len(original[first-1]) == 2 && all(original[first-1], isHexDigit) {
			first--
		}
		if i-first >= 2 {
			for j := first; j < i; j++ {
				segments[j] = typeHex
			}
		}
	}
}
