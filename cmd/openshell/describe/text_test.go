// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
)

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "plain", `a\x0a`, "a\nb", "\x1b]0;x\a", "\xff\xfe", "\u202e", "é…", "\u00a0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Plain(s)
		for _, r := range got {
			if r != ' ' && (r == unicode.ReplacementChar && !strings.ContainsRune(s, r) || !unicode.IsGraphic(r) || unicode.IsSpace(r)) {
				t.Fatalf("%q becomes %q", s, got)
			}
		}
		if again := Plain(got); again != got {
			t.Fatalf("%q becomes %q, then %q", s, got, again)
		}
	})
}

func TestColoursOnlyOnTerminals(t *testing.T) {
	if Coloured(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
	for s, want := range map[string]string{"pending": "\x1b[33mpending\x1b[0m", "+ a": "\x1b[32m+ a\x1b[0m", "other": "other", "": ""} {
		if got := Paint(true, s); got != want {
			t.Errorf("%q becomes %q", s, got)
		}
		if got := Paint(false, s); got != s {
			t.Errorf("%q becomes %q without colours", s, got)
		}
	}
}
