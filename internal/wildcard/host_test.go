// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"strings"
	"testing"
)

// indexed is an index of one name.
type indexed struct{ HostIndex[struct{}] }

func indexOf(pattern string) *indexed {
	var x indexed
	x.Add(pattern)
	return &x
}

func (x *indexed) match(host string) bool {
	return x.Any(host, func(*HostEntry[struct{}]) bool { return true })
}

func TestHostIndex(t *testing.T) {
	tests := []struct {
		pattern       string
		match, differ []string
	}{
		{"*.example.com",
			[]string{"api.example.com"},
			[]string{"example.com", "a.b.example.com", "apiexample.com", "api.example.com.evil.net", ".example.com"}},
		{"**.example.com",
			[]string{"a.example.com", "a.b.example.com"},
			[]string{"example.com", "xexample.com", ".example.com"}},
		{"*-aiplatform.googleapis.com",
			[]string{"us-east1-aiplatform.googleapis.com", "-aiplatform.googleapis.com"},
			[]string{"aiplatform.googleapis.com", "a.b-aiplatform.googleapis.com"}},
		{"*.s3.*.amazonaws.com",
			[]string{"bucket.s3.eu-west-1.amazonaws.com"},
			[]string{"s3.eu-west-1.amazonaws.com", "bucket.s3.amazonaws.com", "a.bucket.s3.eu.amazonaws.com"}},
		{"**.s3.*.amazonaws.com",
			[]string{"a.b.s3.eu.amazonaws.com"}, []string{"s3.eu.amazonaws.com"}},
		{"a*b*c.example.com",
			[]string{"abc.example.com", "axxbxbxc.example.com"}, []string{"ab.example.com", "abcx.example.com"}},
	}
	for _, tt := range tests {
		p := indexOf(tt.pattern)
		for _, host := range tt.match {
			if !p.match(host) {
				t.Errorf("%s should match %s", tt.pattern, host)
			}
		}
		for _, host := range tt.differ {
			if p.match(host) {
				t.Errorf("%s should not match %s", tt.pattern, host)
			}
		}
	}
}

func TestCheckHost(t *testing.T) {
	for _, host := range []string{
		"example.com", "EXAMPLE.com.", "localhost", "a_b.example.com", "10.0.0.1", "::1", "[2001:db8::1]",
		"*.example.com", "**.example.com", "*-x.example.com", "*.s3.*.amazonaws.com", "xn--bcher-kva.example",
	} {
		if err := CheckHost(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	tests := map[string]string{
		"*":                                   "invalid host wildcard '*'",
		"**":                                  "invalid host wildcard '**'",
		"*.com":                               "TLD wildcard '*.com' is not allowed; use subdomain wildcards like '*.example.com' instead",
		"**.com":                              "TLD wildcard '**.com' is not allowed",
		"api-*.com":                           "TLD wildcard",
		"example.*":                           "the last label must not have a wildcard",
		"a.**.example.com":                    "'**' must be the whole first label",
		"x**.example.com":                     "'**' must be the whole first label",
		"foo.us-*.example.com":                "'*' must be a whole label except in the first one",
		"https://example.com":                 "must not have a scheme",
		"example.com:443":                     "ports go in port",
		"example.com/x":                       "paths in path",
		"a..b":                                "empty label",
		".":                                   "empty label",
		"a b.example":                         "invalid character ' '",
		"a\nb.example":                        "invalid character '\\n'",
		"{a,b}.example.com":                   "invalid character '{'",
		"bücher.example":                      "xn-- form",
		"127.1":                               "not a valid address",
		"010.0.0.1":                           "not a valid address",
		"1.2.3.4.5":                           "not a valid address",
		strings.Repeat("a", 64) + ".example":  "label longer than 63",
		strings.Repeat("a.", 127) + "example": "longer than 253",
	}
	for host, want := range tests {
		if err := CheckHost(host); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %s", host, err, want)
		}
	}
}

// FuzzHostIndex compares the label matcher with the glob one, which splits
// and matches in another way.
func FuzzHostIndex(f *testing.F) {
	f.Add("*.example.com", "a.example.com")
	f.Add("**.s3.*.amazonaws.com", "a.b.s3.eu.amazonaws.com")
	f.Add("*a*-b.example.com", "aa-b.example.com")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		pattern, host = CanonicalHost(pattern), CanonicalHost(host)
		if !strings.Contains(pattern, "*") || CheckHost(pattern) != nil || CheckHost(host) != nil || strings.Contains(host, "*") {
			return
		}
		if _, literal := HostAddr(host); literal {
			return
		}
		g, err := CompileGlob(pattern, '.')
		if err != nil {
			t.Fatal(err)
		}
		if got, want := indexOf(pattern).match(host), g.Match(host); got != want {
			t.Errorf("%q on %q: %v, glob says %v", pattern, host, got, want)
		}
	})
}
