package learn

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	for s, want := range map[string]segment{
		"": segmentStatic, "repos": segmentStatic, "v1": segmentStatic, "index.html": segmentStatic, "@scope%2Fname": segmentStatic,
		"0": segmentInteger, "42": segmentInteger, "1234567890123": segmentInteger,
		"2026-08-01": segmentDate, "2026-08": segmentDate, "2026-08-01T10:00:00Z": segmentDate, "2026-13": segmentStatic, "1-2": segmentStatic,
		"550e8400-e29b-41d4-a716-446655440000": segmentUUID, "550E8400-E29B-41D4-A716-446655440000": segmentUUID,
		"550e8400-e29b-41d4-a716-44665544000": segmentStatic,
		"a1b2c3d4":                            segmentHex, "da39a3ee5e6b4b0d3255bfef95601890afd80709": segmentHex,
		"sha256:" + strings.Repeat("ab", 32): segmentHex, "deadbeef": segmentStatic, "facade": segmentStatic, "face2face": segmentStatic,
		"AKIAIOSFODNN7EXAMPLE":                                                    segmentToken,
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a":                                segmentToken,
		"bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw":                         segmentToken,
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3":                       segmentToken,
		"9k2m4x7q1z8w5v3b6n0c":                                                    segmentToken,
		"numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": segmentStatic,
		"GetUserProfileInformation":                                               segmentStatic,
		"my-very-long-article-about-containers":                                   segmentStatic,
		"generateContentStream":                                                   segmentStatic,
		"ubuntu2204desktop":                                                       segmentStatic,
		"Microsoft.VisualStudio.Component.VC.14.29.16.11":                         segmentStatic,
	} {
		if got := classify(s); got != want {
			t.Errorf("classify(%q) = %d, want %d", s, got, want)
		}
	}
}

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
