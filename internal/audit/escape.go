// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis ends what was cut.
const ellipsis = "…"

// Escape makes text from a workload fit to be shown and stored: the result is valid UTF-8,
// has only graphic characters and spaces, so no line breaks, no terminal
// control sequences and no text-direction tricks, and is at most limit bytes long. What is
// not graphic becomes \xNN or \u{N}, and a backslash \\, so different texts stay
// different unless they are cut.
func Escape(s string, limit int) string {
	return escape(s, limit, "")
}

// escapeToken is Escape for what must stay one word: it hides spaces as well, so that a
// file or host name cannot imitate the fields that follow it in a line.
func escapeToken(s string, limit int) string {
	if s == "" {
		return "-"
	}
	return escape(s, limit, " ")
}

// escape escapes the characters of also (ASCII) besides those that are not graphic.
func escape(s string, limit int, also string) string {
	if len(s) <= limit && clean(s, also) {
		return s
	}
	var b strings.Builder
	// cut is how much of b still leaves room for the ellipsis.
	cut := 0
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\\':
			b.WriteString(`\\`)
		case r < utf8.RuneSelf && (r < ' ' || r == 0x7f || strings.IndexByte(also, byte(r)) >= 0):
			fmt.Fprintf(&b, `\x%02x`, r)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		if b.Len() > limit {
			return b.String()[:cut] + ellipsis
		}
		if b.Len() <= limit-len(ellipsis) {
			cut = b.Len()
		}
		s = s[size:]
	}
	return b.String()
}

// clean reports whether s is what escape would return: the common case, plain ASCII.
func clean(s, also string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\\' || strings.IndexByte(also, c) >= 0 {
			return false
		}
	}
	return true
}
