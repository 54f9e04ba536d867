// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"strings"
	"testing"
)

func TestTypeOf(t *testing.T) {
	for s, want := range map[string]Type{
		"": Static, "repos": Static, "v1": Static, "index.html": Static, "@scope%2Fname": Static,
		"0": Integer, "42": Integer, "1234567890123": Integer,
		"2026-08-01": Type(typeDate), "2026-08": Type(typeDate), "2026-08-01T10:00:00Z": Type(typeDate), "2026-13": Static, "1-2": Static,
		"550e8400-e29b-41d4-a716-446655440000": UUID, "550E8400-E29B-41D4-A716-446655440000": UUID,
		"550e8400-e29b-41d4-a716-44665544000": Static,
		"a1b2c3d4":                            Hex, "da39a3ee5e6b4b0d3255bfef95601890afd80709": Hex,
		"sha256:" + strings.Repeat("ab", 32): Hex, "deadbeef": Static, "facade": Static, "face2face": Static,
		"AKIAIOSFODNN7EXAMPLE":                                                    Token,
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a":                                Token,
		"bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw":                         Token,
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3":                       Token,
		"9k2m4x7q1z8w5v3b6n0c":                                                    Token,
		"numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": Static,
		"GetUserProfileInformation":                                               Static,
		"my-very-long-article-about-containers":                                   Static,
		"generateContentStream":                                                   Static,
		"ubuntu2204desktop":                                                       Static,
		"Microsoft.VisualStudio.Component.VC.14.29.16.11":                         Static,
	} {
		if got := TypeOf(s); got != want {
			t.Errorf("TypeOf(%q) = %q, want %q", s, got, want)
		}
	}
}
