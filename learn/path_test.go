package learn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
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

func TestGeneralisePaths(t *testing.T) {
	for name, c := range map[string]struct{ in, want []string }{
		"none":            {nil, nil},
		"root":            {[]string{"/"}, []string{"/"}},
		"static":          {[]string{"/repos/o/r", "/repos/o/r", "/repos/o/q"}, []string{"/repos/o/q", "/repos/o/r"}},
		"typed":           {[]string{"/u/1/posts/22", "/u/333/posts/4"}, []string{"/u/*/posts/*"}},
		"suffix":          {[]string{"/statuses/show/123.json", "/a/42.tar", "/a/v1.2"}, []string{"/a/*.tar", "/a/v1.2", "/statuses/show/*.json"}},
		"trailing slash":  {[]string{"/simple/numpy/", "/u/7/"}, []string{"/simple/numpy/", "/u/*/"}},
		"first stays":     {[]string{"/1/statuses", "/2010-04-01/Accounts", "/a1b2c3d4/x"}, []string{"/1/statuses", "/2010-04-01/Accounts", "/a1b2c3d4/x"}},
		"first is opaque": {[]string{"/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe"}, []string{"/*/getMe"}},
		"wildcards":       {[]string{"/a/*", "/a/**", "/a/?", "/a/{b,c}", "/a/[x]", `/a/\x`, "/a/b"}, []string{"/a/b"}},
		"not canonical":   {[]string{"", "*", "a/b", "/a b", "/a\nb", "/\x1b", "/\xff", "/é", "/" + strings.Repeat("x", 5000)}, nil},
	} {
		if got := GeneralisePaths(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
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

// engineFor compiles a policy that allows GET on the patterns.
func engineFor(t testing.TB, patterns []string) policy.Match {
	t.Helper()
	endpoint := policy.Endpoint{Host: "h.example", Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforcement: policy.EnforcementEnforce, AllowEncodedSlash: true}
	for _, p := range patterns {
		endpoint.Rules = append(endpoint.Rules, policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: p}})
	}
	rule := &policy.Rule{Name: "r", Endpoints: []policy.Endpoint{endpoint}, Binaries: []policy.Binary{{Path: "/b"}}}
	engine, err := policy.Compile(&policy.Policy{Version: 1, Network: map[string]*policy.Rule{"r": rule}}, policy.Options{})
	if err != nil {
		t.Fatalf("patterns %q: %v", patterns, err)
	}
	return engine.Connect(policy.Connection{Binary: "/b", Host: "h.example", Port: 443})
}

// Whatever path a workload asks for, its pattern matches it, and as a
// rule's path matches no other than it should.
func FuzzGeneralisePaths(f *testing.F) {
	for _, s := range []string{"/", "/a/1/b", "/a/**", "//", "/x/", "/a%2Fb/7", "/simple/numpy/", "/é", "/\n", "/bot1:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"} {
		f.Add(s, "/other/9")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := GeneralisePaths([]string{a, b})
		if other := GeneralisePaths([]string{b, a, b}); !slices.Equal(got, other) {
			t.Fatalf("%q and %q: %q or %q, by their order", a, b, got, other)
		}
		for _, target := range []string{a, b} {
			path, _, err := policy.CanonicalTarget(target, true)
			if err != nil {
				continue
			}
			patterns := GeneralisePaths([]string{path})
			if len(patterns) == 0 {
				if !strings.Contains(path, "*") {
					t.Fatalf("canonical path %q has no pattern", path)
				}
				continue
			}
			m := engineFor(t, patterns)
			if v := m.Request(policy.Request{Method: "GET", Path: path}); v.Decision != policy.Allow {
				t.Fatalf("%q does not match its pattern %q: %s", path, patterns, v.Reason)
			}
			if v := m.Request(policy.Request{Method: "GET", Path: path + "/deeper"}); v.Decision == policy.Allow && strings.Contains(patterns[0], "**") == false {
				t.Fatalf("%q also matches below %q", patterns, path)
			}
		}
	})
}

// Bounds widen, and lose nothing; neither order nor portions matter.
func TestPathSetIsBoundedAndOrderIndependent(t *testing.T) {
	for name, path := range map[string]func(i int) string{
		"wide leaf":     func(i int) string { return fmt.Sprintf("/simple/name%c%c%c/", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26) },
		"wide root":     func(i int) string { return fmt.Sprintf("/name%c%c%c/x", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26) },
		"wide and deep": func(i int) string { return fmt.Sprintf("/d%c/e%c/f%c/g", 'a'+i%5, 'a'+i/5%20, 'a'+i/100%26) },
		"long": func(i int) string {
			return fmt.Sprintf("/long/a%c%c/%s", 'a'+i%26, 'a'+i/26%26, strings.Repeat("x", 3000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var paths []string
			for i := range 2000 {
				paths = append(paths, path(i))
			}
			want := GeneralisePaths(paths)
			if len(want) > maxPatterns || len(strings.Join(want, "")) > maxPatternBytes {
				t.Fatalf("%d patterns", len(want))
			}
			m := engineFor(t, want)
			for _, p := range paths {
				if v := m.Request(policy.Request{Method: "GET", Path: p}); v.Decision != policy.Allow {
					t.Fatalf("%q is lost: %q", p, want)
				}
			}
			for range 5 {
				rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
				// In two portions, as two containers would, one of them stored in between.
				all, other := requests{}, requests{}
				cut := rand.IntN(len(paths))
				for i, p := range paths {
					general, _ := pattern(p)
					if i < cut {
						all.add("GET", general)
					} else {
						other.add("GET", general)
					}
				}
				stored := requests{}
				stored.merge(other)
				all.merge(stored)
				if got := all["GET"].sorted(); !slices.Equal(got, want) {
					t.Fatalf("another order: %d patterns %.200q, want %d %.200q", len(got), got, len(want), want)
				}
			}
			if all := (requests{"GET": newPathSet()}); all.widened() {
				t.Error("an empty set is not widened")
			}
		})
	}
}

func TestRequestsBoundMethods(t *testing.T) {
	var methods []string
	for i := range 3 * maxMethods {
		methods = append(methods, fmt.Sprintf("M%d", i))
	}
	build := func() requests {
		r := requests{}
		for _, m := range methods {
			r.add(m, "/x")
		}
		r.add("GET", "/y")
		return r
	}
	r := build()
	if len(r) != 1 || !slices.Equal(r[anyMethod].sorted(), []string{"/x", "/y"}) || !r.widened() {
		t.Errorf("%v", r)
	}
	few := requests{}
	few.add("GET", "/z")
	few.merge(r)
	if len(few) != 1 || !slices.Equal(few[anyMethod].sorted(), []string{"/x", "/y", "/z"}) {
		t.Errorf("merged: %v", few)
	}
}
