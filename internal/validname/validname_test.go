// SPDX-License-Identifier: Apache-2.0

package validname

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, name := range []string{"a", "0", "A.b-c_d", "a..b", strings.Repeat("x", 128)} {
		if err := Check(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "-a", "_a", ".a", "a/b", "a b", "a\n", "a\x00", "ä", "a:b", strings.Repeat("x", 129)} {
		if Check(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
