// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"/repos/o/r/42": "/repos/o/r/42",
		"/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe": "/*/getMe",
		"/k/" + strings.Repeat("0f", 16):                         "/k/*",
		"/commit/a1b2c3d4":                                       "/commit/a1b2c3d4",
	} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
}
