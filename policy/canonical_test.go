package policy

import (
	"strings"
	"testing"
)

func TestCanonicalTarget(t *testing.T) {
	tests := []struct{ target, path, query string }{
		{"/", "/", ""},
		{"", "/", ""},
		{"?q", "/", "q"},
		{"/a/b?x=1&y=%2F..", "/a/b", "x=1&y=%2F.."},
		{"/a?b?c", "/a", "b?c"},
		{"/a/./b", "/a/b", ""},
		{"/a/b/.", "/a/b/", ""},
		{"/a/../b", "/b", ""},
		{"/a/b/..", "/a/", ""},
		{"/public/%2e%2E/secret", "/secret", ""},
		{"//a///b//", "/a/b/", ""},
		{"/a;x=1/b;y", "/a/b", ""},
		{"/a/..;/b", "/b", ""},
		{"/a%3Bx/b", "/a/b", ""},
		{"/%61%7e%5f", "/a~_", ""},
		{"/a%20b%c3%a9", "/a%20b%C3%A9", ""},
		{"/a%3fb%23c", "/a%3Fb%23c", ""},
		{"/a%25%32%46b", "/a%252Fb", ""}, // decoded once: "%2F" as text
		{"/a%252e%252e/b", "/a%252e%252e/b", ""},
		{"/a|b", "/a%7Cb", ""},
		{`/a\b`, "/a%5Cb", ""},
		{"/@scope/x:y*!", "/@scope/x:y*!", ""},
		{"http://h.example/a/../b?q", "/b", "q"},
		{"HTTPS://h.example", "/", ""},
		{"/x/http://y", "/x/http:/y", ""},
		{"/a...b/...", "/a...b/...", ""},
	}
	for _, tt := range tests {
		path, query, err := CanonicalTarget(tt.target, false)
		if err != nil || path != tt.path || query != tt.query {
			t.Errorf("%q: %q, %q, %v; want %q, %q", tt.target, path, query, err, tt.path, tt.query)
		}
	}
}

func TestCanonicalTargetErrors(t *testing.T) {
	tests := map[string]string{
		"/..":                                "escape the path root",
		"/a/../..":                           "escape the path root",
		"/a/%2e%2e/%2e%2e":                   "escape the path root",
		"/..;x":                              "escape the path root",
		"/a%2Fb":                             "encoded '/'",
		"/a%2fb":                             "encoded '/'",
		"/a%":                                "invalid percent-encoded",
		"/a%2":                               "invalid percent-encoded",
		"/a%zz":                              "invalid percent-encoded",
		"/a%00":                              "null or control",
		"/a%0d%0a":                           "null or control",
		"/a%7f":                              "null or control",
		"/a\nb":                              "null or control",
		"/a\x00":                             "null or control",
		"/a b":                               "space",
		"/a#b":                               "fragment",
		"/é":                                 "non-ASCII",
		"/a?é":                               "non-ASCII",
		"*":                                  "origin-form",
		"a/b":                                "origin-form",
		"ftp://h/x":                          "origin-form",
		"h.example:443":                      "origin-form",
		"/" + strings.Repeat("a", maxPath):   "maximum length",
		"/" + strings.Repeat("|", maxPath/2): "maximum length once it is escaped",
	}
	for target, want := range tests {
		path, query, err := CanonicalTarget(target, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %q, %v; want %s", target, path, err, want)
		}
		if path != "" || query != "" {
			t.Errorf("%.40q: returned %q, %q with an error", target, path, query)
		}
	}
}

func TestCanonicalTargetEncodedSlash(t *testing.T) {
	path, _, err := CanonicalTarget("/@scope%2fname/x", true)
	if err != nil || path != "/@scope%2Fname/x" {
		t.Errorf("got %q, %v", path, err)
	}
	for _, target := range []string{"/a%2F..%2Fb", "/a%2f%2e%2e", "/..%2Fb", "/a/%2F./b"} {
		if path, _, err := CanonicalTarget(target, true); err == nil {
			t.Errorf("%s: a dot segment survived in %q", target, path)
		}
	}
}

// FuzzCanonicalTarget checks the properties that decisions rely on: the result
// is its own canonical form, and nothing in it can mean another path.
func FuzzCanonicalTarget(f *testing.F) {
	for _, target := range []string{
		"/a/../b?x", "//%2e%2e;/x", "/a%2Fb/%2F..", "http://h/%25%32%65", "/;/;x/..", "/a%3b", "/./.", "/%01",
	} {
		f.Add(target, true)
		f.Add(target, false)
	}
	f.Fuzz(func(t *testing.T, target string, slash bool) {
		path, query, err := CanonicalTarget(target, slash)
		if err != nil {
			return
		}
		again, _, err := CanonicalTarget(path, slash)
		if err != nil || again != path {
			t.Errorf("%q → %q → %q, %v", target, path, again, err)
		}
		if !strings.Contains(path, "%") && !isCanonical(path) {
			t.Errorf("%q → %q, which is not known for canonical", target, path)
		}
		if raw, _, _ := strings.Cut(target, "?"); raw != "" && isCanonical(raw) && path != raw {
			t.Errorf("%q is taken for canonical, but %q is", raw, path)
		}
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") || strings.ContainsAny(path, ";?#\\ \r\n\x00") {
			t.Errorf("%q → %q", target, path)
		}
		if !slash && strings.Contains(path, "%2F") {
			t.Errorf("%q → %q keeps an encoded slash", target, path)
		}
		for segment := range strings.SplitSeq(strings.ReplaceAll(path, "%2F", "/"), "/") {
			if segment == "." || segment == ".." {
				t.Errorf("%q → %q keeps a dot segment", target, path)
			}
		}
		if query != "" && !strings.HasSuffix(target, "?"+query) {
			t.Errorf("%q: query %q is not the target's", target, query)
		}
	})
}
