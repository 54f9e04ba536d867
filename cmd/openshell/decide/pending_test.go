// SPDX-License-Identifier: Apache-2.0

package decide

import "testing"

func TestMatchID(t *testing.T) {
	known := []string{"p-3f9a1c2b", "p-3f9a1c2b00112233445566778899aabb", "p-77aa0000"}
	for arg, want := range map[string]string{
		"p-3f9a1c2b": known[0], "p-3f9a1c2b0": known[1], "p-7": known[2], "77aa": known[2],
		"p-7@sha256:00": known[2] + "@sha256:00",
	} {
		if got, err := MatchID(known, arg); err != nil || got != want {
			t.Errorf("%s: %q, %v: want %q", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", "p-", "3f", "p-9", "@sha256:00", "7a"} {
		if got, err := MatchID(known, arg); err == nil {
			t.Errorf("%q matches %q", arg, got)
		}
	}
}
