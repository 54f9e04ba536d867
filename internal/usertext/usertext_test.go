// SPDX-License-Identifier: Apache-2.0

package usertext

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"ttl", "tll", 1},
	} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestClosest(t *testing.T) {
	known := []string{"network", "permissive", "policy", "polity"}
	two := func(string) int { return 2 }
	for word, want := range map[string]string{
		"permisive": "permissive", "polcy": "policy", "poliXy": "policy", "police": "policy", "nothing": "", "": "",
		strings.Repeat("policy", 1<<16): "",
	} {
		if got := Closest(word, slices.Values(known), two); got != want {
			t.Errorf("Closest(%.20q) = %q, want %q", word, got, want)
		}
	}
	if got := Closest("polcy", slices.Values(known), func(string) int { return 0 }); got != "" {
		t.Errorf("nothing may differ, but %q", got)
	}
}

func TestOneLine(t *testing.T) {
	if got := OneLine(errors.Join(errors.New("a"), errors.New("b"))); got != "a; b" {
		t.Errorf("%q", got)
	}
}
