// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"strings"
	"testing"
	"time"
)

func TestGlob(t *testing.T) {
	tests := []struct {
		separator byte
		pattern   string
		match     []string
		differ    []string
	}{
		{'/', "/a/b", []string{"/a/b"}, []string{"/a/B", "/a/b/", "/a/bc", ""}},
		{'/', "/repos/*", []string{"/repos/x", "/repos/"}, []string{"/repos", "/repos/x/y", "/Repos/x"}},
		{'/', "/repos/*/*", []string{"/repos/x/y"}, []string{"/repos/x", "/repos/x/y/z"}},
		{'/', "/*.tar.gz", []string{"/x.tar.gz", "/.tar.gz"}, []string{"/a/x.tar.gz", "/xAtar.gz"}},
		{'/', "/a/**", []string{"/a/b", "/a/b/c", "/a/"}, []string{"/a", "/ab/c"}},
		{'/', "/a/**/z", []string{"/a/z", "/a/b/z", "/a/b/c/z"}, []string{"/az", "/a/bz"}},
		{'/', "/**", []string{"/", "/a", "/a/b"}, []string{"a"}},
		{'/', "/**/info/refs*", []string{"/o/r.git/info/refs", "/info/refs"}, []string{"/o/info/refs/x"}},
		{'/', "**", []string{"", "/", "/a/b"}, nil},
		{'/', "**/curl", []string{"/usr/bin/curl", "curl"}, []string{"/usr/bin/xcurl"}},
		{'/', "/a**b", []string{"/ab", "/axb"}, []string{"/ax/b"}}, // not a whole component
		{'/', "/a***", []string{"/ab"}, []string{"/a/b"}},
		{'/', "/usr/bin/python3.?", []string{"/usr/bin/python3.1"}, []string{"/usr/bin/python3.11", "/usr/bin/python3./"}},
		{'/', "/v[0-9]/x", []string{"/v1/x"}, []string{"/va/x", "/v/x"}},
		{'/', "/v[!0-9]x", []string{"/vax"}, []string{"/v1x", "/v/x"}},
		{'/', "/[]a]", []string{"/]", "/a"}, []string{"/b"}},
		{'/', "/[a^-]", []string{"/^", "/-"}, []string{"/b"}},
		{'/', "/{a,b/c}/*", []string{"/a/x", "/b/c/x"}, []string{"/b/x", "/c/x"}},
		{'/', "/{a,{b,c}}", []string{"/a", "/b", "/c"}, []string{"/{a"}},
		{'/', "/{a/**,b}", []string{"/a/x", "/a/x/y", "/b"}, []string{"/a", "/b/x"}},
		{'/', "/x{**/a,b}", []string{"/xa", "/x/a", "/xy/z/a", "/xb"}, []string{"/xya", "/x/b"}},
		{'/', "/x/{**,b}", []string{"/x/a", "/x/b", "/x/"}, []string{"/x/a/b"}},
		{'/', "/{a,**/b}/c", []string{"/a/c", "/b/c", "/x/y/b/c"}, []string{"/x/a/c"}},
		{'/', "/x{,.json}", []string{"/x.json"}, []string{"/x", "/x,.json"}},
		{'/', "/x{a,,b,}", []string{"/xa", "/xb"}, []string{"/x", "/xab"}},
		{'/', "/x{,}y{}", []string{"/xy"}, []string{"/x,y", "/x"}},
		{'/', "/x{a,{}}", []string{"/xa"}, []string{"/x"}},
		{'/', "/{{a,},{,b}}", []string{"/a", "/b"}, []string{"/"}},
		{'/', `/a\*b`, []string{"/a*b"}, []string{"/axb"}},
		{'/', "/a.b+(c)$*", []string{"/a.b+(c)$"}, []string{"/aXb+(c)$"}},
		{'/', "/x,*", []string{"/x,y"}, []string{"/x"}},
		{'.', "v1.*", []string{"v1.2", "v1.2/3"}, []string{"v1.2.3", "v1"}},
		{'.', "release-*", []string{"release-a/b", "release-"}, []string{"release-1.2"}},
		{'.', "a.**.z", []string{"a.b.z", "a.b.c.z"}, []string{"a.z", "z"}},
		{'.', "**", []string{"", "a.b", "a\nb"}, nil},
	}
	for _, tt := range tests {
		g, err := CompileGlob(tt.pattern, tt.separator)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, s := range tt.match {
			if !g.Match(s) {
				t.Errorf("%q should match %q", tt.pattern, s)
			}
		}
		for _, s := range tt.differ {
			if g.Match(s) {
				t.Errorf("%q should not match %q", tt.pattern, s)
			}
		}
	}
}

func TestGlobErrors(t *testing.T) {
	tests := map[string]string{
		"/{a":                              "unclosed '{'",
		"/a}":                              "unopened '}'",
		"/[a":                              "unclosed '['",
		"/[":                               "unclosed '['",
		"/[]":                              "unclosed '['",
		`/a*\`:                             "dangling '\\'",
		"/[z-a]":                           "invalid character class range",
		"/[a/b]":                           "a class cannot hold '/'",
		"/[.-9]":                           "a class cannot hold '/'",
		"/" + strings.Repeat("*", MaxGlob): "longer than",
	}
	for pattern, want := range tests {
		if _, err := CompileGlob(pattern, '/'); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %s", pattern, err, want)
		}
	}
}

// A pattern on which backtracking matchers take time exponential or cubic in
// the workload's text.
func TestGlobTimeIsLinear(t *testing.T) {
	g, err := CompileGlob("/**/*a*b*c*d*e/**/x*y", '/')
	if err != nil {
		t.Fatal(err)
	}
	text := "/" + strings.Repeat("abcd", 1000)
	start := time.Now()
	for range 10 {
		if g.Match(text) {
			t.Fatal("matched")
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("ten matches took %v", took)
	}
}

func TestEndpointPath(t *testing.T) {
	tests := []struct {
		pattern       string
		specificity   int
		match, differ []string
	}{
		{"", 0, []string{"/", "/a/b"}, nil},
		{"**", 0, []string{"/a"}, nil},
		{"/**", 0, []string{"/", "/a/b"}, nil},
		{"/v1/**", 4, []string{"/v1", "/v1/", "/v1/a/b"}, []string{"/v10", "/v", "/"}},
		{"/v1/*", 4, []string{"/v1/a", "/v1/a/b"}, []string{"/v1"}}, // * crosses here
		{"/v?/x", 5, []string{"/v1/x"}, []string{"/v12/x"}},
		{"/graphql", 8, []string{"/graphql"}, []string{"/graphql/", "/graphq"}},
		{"/a.b", 4, []string{"/a.b"}, []string{"/aXb"}},
	}
	for _, tt := range tests {
		p, err := CompileEndpointPath(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		if p.Specificity != tt.specificity {
			t.Errorf("%q: specificity %d, want %d", tt.pattern, p.Specificity, tt.specificity)
		}
		for _, s := range tt.match {
			if !p.Match(s) {
				t.Errorf("%q should match %q", tt.pattern, s)
			}
		}
		for _, s := range tt.differ {
			if p.Match(s) {
				t.Errorf("%q should not match %q", tt.pattern, s)
			}
		}
	}
	if _, err := CompileEndpointPath("/{a,b}"); err == nil {
		t.Error("braces should be refused")
	}
}

// FuzzGlob checks that no pattern or text panics, and that an escaped text
// matches itself only.
func FuzzGlob(f *testing.F) {
	for _, pattern := range []string{"/a/**/b", "{a,*}[!x]", `\*?`, "**.x", "/[a-z]*", "/[]", "{,}"} {
		f.Add(pattern, "/a/x/b")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		for _, separator := range []byte{'/', '.'} {
			g, err := CompileGlob(pattern, separator)
			if err != nil {
				continue
			}
			matched := g.Match(text)
			if !IsGlob(pattern) && matched != (pattern == text) {
				t.Errorf("literal %q on %q: %v", pattern, text, matched)
			}
			if strings.Trim(pattern, "*?") == "" && len(pattern) > 0 && pattern != "**" && matched &&
				strings.IndexByte(text, separator) >= 0 {
				t.Errorf("%q crossed %q in %q", pattern, separator, text)
			}
		}
		if p, err := CompileEndpointPath(pattern); err == nil {
			p.Match(text)
		}
	})
}

func FuzzAffix(f *testing.F) {
	f.Add("/repos/**/x*y", "/repos/a/xzy", byte('/'))
	f.Add("**/b", "b", byte('/'))
	f.Add("**.a.*", "x.a.b", byte('.'))
	f.Fuzz(func(t *testing.T, pattern, s string, separator byte) {
		if separator != '.' {
			separator = '/'
		}
		g, err := CompileGlob(pattern, separator)
		if err != nil {
			return
		}
		var x AffixIndex[Glob]
		x.Add(g.Affix, g)
		if got, want := x.Any(s, func(g Glob) bool { return g.Match(s) }), g.expr != nil && g.expr.MatchString(s) || g.expr == nil && s == pattern; got != want {
			t.Errorf("%q on %q: found %v, matches %v", pattern, s, got, want)
		}
	})
}
