// SPDX-License-Identifier: Apache-2.0

package policy

import "testing"

func FuzzFewEdits(f *testing.F) {
	f.Add("api.example.com", "api.exmaple.com")
	f.Fuzz(func(t *testing.T, a, b string) {
		if fewEdits(a, b) != fewEdits(b, a) {
			t.Errorf("%q, %q: not symmetric", a, b)
		}
	})
}
