// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"strings"
	"testing"
)

func FuzzPatternsOverlap(f *testing.F) {
	f.Add("a*b", "*ab", "ab")
	f.Add("a?c*", "*", "abcd")
	f.Fuzz(func(t *testing.T, a, b, s string) {
		if len(a) > 64 || len(b) > 64 || strings.ContainsAny(a+b, "?") {
			return
		}
		if matchLabel(a, s) && matchLabel(b, s) && !Overlap(a, b) {
			t.Errorf("%q and %q both match %q", a, b, s)
		}
		if Overlap(a, b) != Overlap(b, a) {
			t.Errorf("%q and %q: not symmetric", a, b)
		}
		if !strings.Contains(b, "*") && Overlap(a, b) != matchLabel(a, b) {
			t.Errorf("%q on %q", a, b)
		}
	})
}
