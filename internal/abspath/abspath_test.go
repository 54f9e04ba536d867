// SPDX-License-Identifier: Apache-2.0

package abspath

import "testing"

func TestRel(t *testing.T) {
	for _, tt := range []struct {
		p, dir, rel string
		ok          bool
	}{
		{"/a", "/a", "", true},
		{"/a/b/c", "/a", "b/c", true},
		{"/ab", "/a", "", false},
		{"/a", "/a/b", "", false},
		{"/b", "/a", "", false},
		{"/", "/", "", true},
		{"/a/b", "/", "a/b", true},
		{"/a/b", "/a/", "b", true},
		{"//a//b/", "/a", "b", true},
		{"/a/../b", "/a", "", false},
		{"/b/../a/c", "/a", "c", true},
		{"", "/", "", false},
		{"a", "/", "", false},
		{"", "/a", "", false},
	} {
		if rel, ok := Rel(tt.p, tt.dir); rel != tt.rel || ok != tt.ok {
			t.Errorf("Rel(%q, %q) = %q, %v, want %q, %v", tt.p, tt.dir, rel, ok, tt.rel, tt.ok)
		}
		if ok := Within(tt.p, tt.dir); ok != tt.ok {
			t.Errorf("Within(%q, %q) = %v", tt.p, tt.dir, ok)
		}
	}
}
