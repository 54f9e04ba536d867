// SPDX-License-Identifier: Apache-2.0

package httptarget

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	tests := []struct {
		target, query string
		readings      []string
	}{
		{"/", "", []string{"/"}},
		{"", "", []string{"/"}},
		{"?q", "q", []string{"/"}},
		{"/a/b?x=1&y=%2F..", "x=1&y=%2F..", []string{"/a/b"}},
		{"/a?b?c", "b?c", []string{"/a"}},
		{`/a?x=\&y=%5C..`, `x=\&y=%5C..`, []string{"/a"}},
		// Spelling alone is no other reading.
		{"/model/anthropic.x-v1%3A0/invoke", "", []string{"/model/anthropic.x-v1:0/invoke"}},
		{"/bucket/x%2Cy", "", []string{"/bucket/x,y"}},
		{"/%61%7e%5f", "", []string{"/a~_"}},
		{"/a%20b%c3%a9", "", []string{"/a%20b%C3%A9"}},
		{"/a%3fb%23c", "", []string{"/a%3Fb%23c"}},
		{"/a|b{c}", "", []string{"/a%7Cb%7Bc%7D"}},
		{"/@scope/x:y*!", "", []string{"/@scope/x:y*!"}},
		{"/a...b/...", "", []string{"/a...b/..."}},
		{"/m%FCller", "", []string{"/m%FCller"}},
		{"/%e5%a5%bd", "", []string{"/%E5%A5%BD"}},
		{"HTTPS://h.example", "", []string{"/"}},
		// Dot segments.
		{"/a/./b", "", []string{"/a/./b", "/a/b"}},
		{"/a/b/.", "", []string{"/a/b/.", "/a/b/"}},
		{"/a/b/..", "", []string{"/a/b/..", "/a/"}},
		{"/public/%2e%2E/secret", "", []string{"/public/../secret", "/secret"}},
		{"http://h.example/a/../b?q", "q", []string{"/a/../b", "/b"}},
		// Slashes.
		{"/bucket/a//b", "", []string{"/bucket/a//b", "/bucket/a/b"}},
		{"//a", "", []string{"//a", "/a"}},
		{"/x/http://y", "", []string{"/x/http://y", "/x/http:/y"}},
		{"/a//../b", "", []string{"/a//../b", "/a/../b", "/a/b", "/b"}},
		// Parameters.
		{"/x;v=1/y;jsessionid=AB", "", []string{"/x;v=1/y;jsessionid=AB", "/x/y"}},
		{"/a%3Bx/b", "", []string{"/a%3Bx/b", "/a;x/b", "/a/b"}},
		{"/a;x/b%3By", "", []string{"/a;x/b%3By", "/a;x/b;y", "/a/b;y", "/a/b", "/a/b%3By"}},
		{"/a/..;/b", "", []string{"/a/..;/b", "/a/../b", "/b"}},
		// Encoded slashes.
		{"/@scope%2fname", "", []string{"/@scope%2Fname", "/@scope/name"}},
		{"/a%2F%2Fb", "", []string{"/a%2F%2Fb", "/a//b", "/a/b"}},
		// Decoding twice.
		{"/100%25", "", []string{"/100%25"}},
		{"/100%25/x", "", []string{"/100%25/x"}},
		{"/100%25zz", "", []string{"/100%25zz"}},
		{"/a%2520b", "", []string{"/a%2520b", "/a%20b"}},
		{"/%2541", "", []string{"/%2541", "/A"}},
		{"/%252541", "", []string{"/%252541", "/%2541", "/A"}},
		{"/a%252fb", "", []string{"/a%252fb", "/a%2Fb", "/a/b"}},
		{"/a/%252e%252e/b", "", []string{"/a/%252e%252e/b", "/a/../b", "/b"}},
		{"/a/.%252e/b", "", []string{"/a/.%252e/b", "/a/../b", "/b"}},
		{"/a%253Bx", "", []string{"/a%253Bx", "/a%3Bx", "/a;x", "/a"}},
		// Characters that are converted.
		{"/a/%ef%bc%8e%e2%80%a4/b", "", []string{"/a/%EF%BC%8E%E2%80%A4/b", "/a/../b", "/b"}},
		{"/a%ef%bc%8fb", "", []string{"/a%EF%BC%8Fb", "/a/b"}},
		{"/%e2%80%a6", "", []string{"/%E2%80%A6"}}, // an ellipsis, in titles
	}
	for _, tt := range tests {
		got, err := Parse("GET", tt.target)
		if err != nil || got.Query() != tt.query {
			t.Errorf("%q: %q, %v", tt.target, got.Query(), err)
			continue
		}
		readings := got.Readings()
		if readings[0] != tt.readings[0] || !slices.Equal(sorted(readings), sorted(tt.readings)) {
			t.Errorf("%q: %q, want %q", tt.target, readings, tt.readings)
		}
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func TestParseTargetErrors(t *testing.T) {
	const backslash, overlong, beside = "backslash", "overlong UTF-8", "beside an encoded '/'"
	tests := map[string]string{
		"/..":                                "escape the path root",
		"/a/../..":                           "escape the path root",
		"/a/%2e%2e/%2e%2e":                   "escape the path root",
		"/..;x":                              "escape the path root",
		"/a//../..":                          "escape the path root",
		"/%252e%252e/x":                      "escape the path root",
		"/a%":                                "invalid percent-encoded",
		"/a%2":                               "invalid percent-encoded",
		"/a%zz":                              "invalid percent-encoded",
		"/a%u002f":                           "invalid percent-encoded",
		"/a%00":                              "null or control",
		"/a%2500":                            "null or control",
		"/a%0d%0a":                           "null or control",
		"/a%7f":                              "null or control",
		"/a\nb":                              "null or control",
		"/a\x00":                             "null or control",
		"/a b":                               "space",
		"/a#b":                               "fragment",
		"/é":                                 "non-ASCII",
		"/a?é":                               "non-ASCII",
		"*":                                  "origin-form",
		"*?x":                                "origin-form",
		"a/b":                                "origin-form",
		"ftp://h/x":                          "origin-form",
		"h.example:443":                      "origin-form",
		`/a\b`:                               backslash,
		"/a/..%5Csecret":                     backslash,
		"/a/%5C..":                           backslash,
		"/a/%5c%2e%2e%5c":                    backslash,
		"/a%255cb":                           backslash,
		"/a%25255cb":                         backslash,
		"/a/..%ef%bc%bcb":                    backslash,
		"/%c0%ae%c0%ae/x":                    overlong,
		"/a%c0%afb":                          overlong,
		"/a%c1%9cb":                          overlong,
		"/a%c0%2fb":                          overlong,
		"/a%e0%80%afb":                       overlong,
		"/a%f0%80%80%afb":                    overlong,
		"/a%f8%80%80%80%afb":                 overlong,
		"/a%fc%80%80%80%80%afb":              overlong,
		"/a%25c0%25afb":                      overlong,
		"/a%2F..%2Fb":                        beside,
		"/a%2f%2e%2e":                        beside,
		"/..%2Fb":                            beside,
		"/a/%2F./b":                          beside,
		"/a/..;x%2Fb":                        beside,
		"/a%252f..%252fb":                    beside,
		"//a|b":                              "begins with '//'",
		"/" + strings.Repeat("a", maxPath):   "maximum length",
		"/" + strings.Repeat("|", maxPath/2): "maximum length once it is escaped",
	}
	for target, want := range tests {
		got, err := Parse("GET", target)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %q, %v; want %s", target, got.Readings(), err, want)
		}
	}
	if _, err := Parse("GET", "/a//%252e/;b%2fc%3b/../%ef%bc%8f%2525252e/d//%2525253b/x;y/%e2%80%a4/z%2fz/./w"); err == nil || !strings.Contains(err.Error(), "more than 32 ways") {
		t.Errorf("a target with too many readings: %v", err)
	}
}

func TestAsteriskForm(t *testing.T) {
	for method, targets := range map[string][]string{"OPTIONS": {"*", "http://h.example"}, "options": {"*"}} {
		for _, target := range targets {
			got, err := Parse(method, target)
			if err != nil || got.Path() != "*" || got.URL("http", "h.example").RequestURI() != "*" {
				t.Errorf("%s %s: %q, %v", method, target, got.Path(), err)
			}
		}
	}
}

// What was sent is what net/http sends.
func TestTargetIsSentAsItCame(t *testing.T) {
	for _, target := range []string{
		"/", "/a?", "/?", "/a?x=%zz&y=a;b", "/model/anthropic.x-v1%3A0/invoke", "/bucket/a//b", "//a//b", "//a%2fb;c?d",
		"/x;v=1/y;jsessionid=AB", "/bucket/x%2Cy", "/a/../b/./c", "/%7euser", "/a|b{c}^\"<>`", "/%e4%BD%a0", "/a+b%20c", "/a%2525",
	} {
		got, err := Parse("GET", target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if sent := got.URL("https", "h.example:443").RequestURI(); sent != target {
			t.Errorf("%s is sent as %s", target, sent)
		}
	}
}

// FuzzParseTarget checks what decisions rely on: each reading is spelt in the one
// way, what a server can make of one is another, and what was sent goes on.
func FuzzParseTarget(f *testing.F) {
	for _, target := range []string{
		"/a/../b?x", "//%2e%2e;/x", "/a%2Fb/%2F..", "http://h/%25%32%65", "/;/;x/..", "/a%3b", "/./.", "/%01", "/a%5c..", "/%c0%af",
		"/%252e%252e%252f", "/%ef%bc%8f..", "//|", "/a//b;c%2fd%253b",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, err := Parse("GET", target)
		if err != nil {
			return
		}
		readings := got.Readings()
		for i, path := range readings {
			if again, err := Parse("GET", path); err != nil || again.Path() != path {
				t.Errorf("%q has the reading %q, which is spelt %q, %v", target, path, again.Path(), err)
			} else if !isSubset(again.Readings(), readings) {
				t.Errorf("%q has %q, whose own readings are %q", target, readings, again.Readings())
			}
			if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#\\ \r\n\x00") || slices.Contains(readings[:i], path) {
				t.Errorf("%q has the reading %q", target, path)
			}
		}
		// What most servers do, done by others' code, is one of the readings.
		raw, _, _ := strings.Cut(target, "?")
		if u, err := url.Parse("http://h.example" + originForm(raw)); err == nil && u.Path != "" {
			clean := (&url.URL{Scheme: "http", Host: "h.example", Path: "/"}).ResolveReference(u)
			if again, err := Parse("GET", clean.EscapedPath()); err != nil || !slices.Contains(readings, again.Path()) {
				t.Errorf("%q has the readings %q, not %q, %v", target, readings, clean.EscapedPath(), err)
			}
		}
		sent := got.URL("https", "h.example").RequestURI()
		if want := target[len(raw):]; originForm(raw) != "" && sent != originForm(raw)+want || !strings.HasSuffix(sent, want) {
			t.Errorf("%q is sent as %q", target, sent)
		}
	})
}

func isSubset(some, of []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(of, s) })
}

// FuzzHasOneReading checks that the short cut leaves nothing out.
func FuzzHasOneReading(f *testing.F) {
	for _, text := range []string{"/a b/c", "/a/./b", "/a;b", "/a//b", "/a%41", "/\uff0e", "/a\\b", "/a\x01b", "/.a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !hasOneReading(text) {
			return
		}
		if err := check(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		for i, way := range ways {
			if other, err := way.read(text); err != nil || other != text {
				t.Errorf("%q is read as %q, %v by way %d", text, other, err, i)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, target := range map[string]string{
		"plain": "/repos/owner/name/issues?state=open",
		"space": "/repos/owner/a%20b/issues?state=open",
		"dots":  "/repos/owner/a%20b/./issues?state=open",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("GET", target); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
