// SPDX-License-Identifier: Apache-2.0

// Package printable owns how text of others is shown on one line of a log or a message.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Deceptive reports whether a character could make a policy, a log line or a
// terminal show something else than what is matched.
func Deceptive(r rune) bool {
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)
}

// Text returns s as it may be shown on one line: unchanged where nothing
// in it could deceive, quoted otherwise.
func Text(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, Deceptive) {
		return s
	}
	return fmt.Sprintf("%+q", s)
}

// maxBrief is how much of a workload's text a reason quotes, in bytes.
const maxBrief = 128

// Brief returns text of a workload's as a reason quotes it.
func Brief(s string) string {
	if len(s) <= maxBrief {
		return Text(s)
	}
	cut := maxBrief
	for !utf8.RuneStart(s[cut]) && cut > maxBrief-utf8.UTFMax {
		cut--
	}
	return Text(s[:cut]) + "..."
}
