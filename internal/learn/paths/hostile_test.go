// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/httptarget"
)

func templatesOf(method string, paths ...string) []string {
	var s Set
	for _, p := range paths {
		s.Add(method, p)
	}
	var out []string
	for _, t := range s.Templates() {
		out = append(out, t.Path)
	}
	return out
}

func numbered(n int, format string) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// secret is a token that differs by i and nothing else tells from an id.
func secret(i int) string {
	return fmt.Sprintf("s3cR%dtK%dq9Zx7Lp2%dVn", i%7, i, i*7919%9973)
}

func TestTemplates(t *testing.T) {
	secrets := make([]string, 1000)
	for i := range secrets {
		secrets[i] = "/a/" + secret(i)
	}
	for name, c := range map[string]struct {
		method string
		in     []string
		want   []string
	}{
		"nothing":                     {"GET", nil, nil},
		"root":                        {"GET", []string{"/"}, []string{"/"}},
		"typed":                       {"GET", []string{"/u/1/posts/22", "/u/333/posts/4"}, []string{"/u/*/posts/*"}},
		"suffix":                      {"GET", []string{"/a/42.tar", "/a/v1.2"}, []string{"/a/*.tar", "/a/v1.2"}},
		"prefix":                      {"GET", []string{"/a/cus_NffrFeUfNV2Hib99x"}, []string{"/a/cus_*"}},
		"trailing slash":              {"GET", []string{"/simple/numpy/", "/u/7/"}, []string{"/simple/numpy/", "/u/*/"}},
		"version and first stay":      {"GET", []string{"/1/statuses", "/2010-04-01/Accounts", "/v2/users"}, []string{"/1/statuses", "/2010-04-01/Accounts", "/v2/users"}},
		"secret in front":             {"GET", []string{"/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe"}, []string{"/*/getMe"}},
		"one visit, a thousand times": {"GET", slices.Repeat([]string{"/a/" + secret(1)}, 1000), []string{"/a/*"}},
		"a thousand secrets":          {"GET", secrets, []string{"/a/*"}},
		"names":                       {"GET", []string{"/repos/quiet-river-12/issues", "/repos/dotfiles_x/issues", "/repos/kubelet-3/issues", "/repos/zorp9/issues"}, []string{"/repos/*/issues"}},
		"names, deleted once":         {"DELETE", []string{"/repos/quiet-river-12"}, []string{"/repos/quiet-river-12"}},
		"an API's own words":          {"GET", []string{"/users/search", "/users/list", "/users/count", "/users/export", "/users/settings"}, []string{"/users/count", "/users/export", "/users/list", "/users/search", "/users/settings"}},
		"one odd sample":              {"GET", []string{"/users/search", "/users/list", "/users/kub3-x_9"}, []string{"/users/kub3-x_9", "/users/list", "/users/search"}},
		"first segments stay":         {"GET", numbered(50, "/kub-%d-x/y"), nil},
		"custom verb":                 {"POST", []string{"/v1/jobs/blue-4:cancel", "/v1/jobs/zorp-9:cancel", "/v1/jobs/kub-77:cancel"}, []string{"/v1/jobs/*:cancel"}},
		"literal star":                {"GET", []string{"/a/*", "/a/**", "/a/x*y"}, []string{`/a/\*`, `/a/\*\*`, `/a/x\*y`}},
		"escapes":                     {"GET", []string{"/a/%7Bid%7D", "/b/%2F"}, []string{"/a/%7Bid%7D", "/b/%2F"}},
		"not canonical":               {"GET", []string{"", "*", "a/b", "/a b", "/a\nb", "/{int}", "/\xff", "/é", "/a?b", `/a\b`, "/[x]", "/" + strings.Repeat("x", 5000)}, nil},
		"long segment":                {"GET", []string{"/a/" + strings.Repeat("x", 3000)}, []string{"/a/*"}},
		"deep":                        {"GET", []string{strings.Repeat("/a", 2000)}, []string{strings.Repeat("/a", maxDepth) + "/**"}},
	} {
		got := templatesOf(c.method, c.in...)
		if name == "first segments stay" {
			if len(got) != 50 {
				t.Errorf("%s: %d templates", name, len(got))
			}
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestMethodsAreNamed(t *testing.T) {
	var s Set
	for _, m := range []string{"", "GET /", "G\nT", "É", strings.Repeat("X", 33)} {
		if s.Add(m, "/x") {
			t.Errorf("method %q is taken", m)
		}
	}
	if s.Len() != 0 {
		t.Error("something was added")
	}
}

// What varies for reading is learned for reading only; deleting needs its own evidence.
func TestWritesAreGeneralisedLater(t *testing.T) {
	var s Set
	for _, p := range []string{"/repos/quiet-river-12", "/repos/dotfiles_x", "/repos/kubelet-3", "/repos/zorp9"} {
		s.Add("GET", p)
	}
	s.Add("DELETE", "/repos/zorp9")
	s.Add("DELETE", "/repos/zorp9")
	got := fmt.Sprint(s.Templates())
	if !strings.Contains(got, "{GET /repos/* ") || !strings.Contains(got, "{DELETE /repos/zorp9 ") {
		t.Error(got)
	}
}

func engineFor(t testing.TB, templates []Template) engine.Match {
	t.Helper()
	endpoint := policy.Endpoint{Host: "h.example", Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforcement: policy.EnforcementEnforce, AllowEncodedSlash: true}
	for _, x := range templates {
		endpoint.Rules = append(endpoint.Rules, policy.L7Allow{Allow: policy.L7Match{Method: x.Method, Path: x.Path}})
	}
	rule := &policy.Rule{Name: "r", Endpoints: []policy.Endpoint{endpoint}, Binaries: []policy.Binary{{Path: "/b"}}}
	compiled, err := engine.Compile(&policy.Policy{Version: 1, Network: map[string]*policy.Rule{"r": rule}}, engine.Options{})
	if err != nil {
		t.Fatalf("%v: %v", templates, err)
	}
	return compiled.Connect(engine.Connection{Binary: "/b", Host: "h.example", Port: 443})
}

// hostilePaths are floods of distinct paths, each of another kind.
var hostilePaths = map[string]func(i int) string{
	"names": func(i int) string {
		return fmt.Sprintf("/simple/kub%c%c%c%c/", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26, 'a'+i/17576%26)
	},
	"first segments": func(i int) string {
		return fmt.Sprintf("/kub%c%c%c%c/x", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26, 'a'+i/17576%26)
	},
	"own words": func(i int) string {
		return fmt.Sprintf("/x/users%s/list", strings.Repeat("/search", i%20)+strings.Repeat("/count", i/20%50))
	},
	"deep":  func(i int) string { return fmt.Sprintf("/d/e%d/f%d/g%d", i%50, i/50%50, i) },
	"long":  func(i int) string { return fmt.Sprintf("/long/a%d/%s", i, strings.Repeat("x/", 1500)) },
	"mixed": func(i int) string { return fmt.Sprintf("/k%d/a%c/%x", i%400, 'a'+i%26, i) },
}

func TestFloodsAreBoundedWhateverTheOrder(t *testing.T) {
	for name, path := range hostilePaths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 24000
			if name == "long" {
				n = 3000
			}
			paths := make([]string, n)
			for i := range paths {
				paths[i] = path(i)
			}
			var want []byte
			for round := range 2 {
				var first, second Set
				cut := rand.IntN(len(paths))
				for i, p := range paths {
					if i < cut {
						first.Add("GET", p)
					} else {
						second.Add("GET", p)
					}
				}
				stored, err := json.Marshal(&second)
				if err != nil {
					t.Fatal(err)
				}
				var back Set
				if err := json.Unmarshal(stored, &back); err != nil {
					t.Fatal(err)
				}
				first.Merge(&back)
				got, err := json.Marshal(&first)
				if err != nil {
					t.Fatal(err)
				}
				if round > 0 && !bytes.Equal(got, want) {
					t.Fatalf("another order makes another set: %d bytes and %d", len(got), len(want))
				}
				want = got
				if len(got) > 2*maxSize {
					t.Errorf("%d bytes are stored", len(got))
				}
				for _, x := range first.Templates() {
					if x.Path == "/*" || x.Path == "/**" || strings.HasSuffix(x.Path, "/**") && strings.Count(x.Path, "/") < maxDepth {
						t.Fatalf("%s is much too wide", x.Path)
					}
				}
				rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
			}
		})
	}
}

// Whatever was asked for is allowed by the templates, as the policy engine decides.
func FuzzTemplatesCoverWhatWasSeen(f *testing.F) {
	for _, s := range []string{"/", "/a/1/b", "/a/**", "//", "/x/", "/a%2Fb/7", "/simple/numpy/", "/é", "/\n", "/bot1:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", "/v1/x:y", "/a/b.json", strings.Repeat("/q", 40)} {
		f.Add(s, "/other/9", "/other/zorp-9", "DELETE")
	}
	f.Fuzz(func(t *testing.T, a, b, c, method string) {
		if len(method) > 8 || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || method == "" {
			method = "GET"
		}
		var s, reverse Set
		var taken []string
		for _, target := range []string{a, b, c, a + "x", b + "-9", c + "/z"} {
			parsed, err := httptarget.Parse("GET", target)
			if err != nil {
				continue
			}
			for _, path := range parsed.Readings() {
				if !s.Add(method, path) {
					t.Fatalf("the path %q is not taken", path)
				}
				taken = append(taken, path)
			}
		}
		for _, p := range slices.Backward(taken) {
			reverse.Add(method, p)
		}
		x, _ := json.Marshal(&s)
		y, _ := json.Marshal(&reverse)
		if !bytes.Equal(x, y) {
			t.Fatalf("by their order, %s or %s", x, y)
		}
		var back Set
		if err := json.Unmarshal(x, &back); err != nil {
			t.Fatalf("%s: %v", x, err)
		}
		templates := back.Templates()
		if fmt.Sprint(templates) != fmt.Sprint(reverse.Templates()) {
			t.Fatal("stored and read, a set has other templates")
		}
		if len(templates) == 0 {
			return
		}
		m := engineFor(t, templates)
		for _, path := range taken {
			if v := m.Request(engine.Request{Method: method, Path: path}); v.Decision != engine.Allow {
				t.Fatalf("%q is not allowed by %v: %s", path, templates, v.Reason)
			}
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"patterns":[{"method":"GET","path":"/a/{int}","count":2}],"levels":{"a":3},"halvings":1}`))
	f.Add([]byte(`{"patterns":[{"method":"GET","path":"/a/{x}{int}","count":2}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Set
		if json.Unmarshal(b, &s) != nil {
			return
		}
		first, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		var again Set
		if err := json.Unmarshal(first, &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if templates := s.Templates(); len(templates) > 0 {
			engineFor(t, templates)
		}
	})
}

// BenchmarkMillion adds a million distinct paths, and reports what is kept.
func BenchmarkMillion(b *testing.B) {
	for name, path := range hostilePaths {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				var s Set
				for i := range 1_000_000 {
					s.Add("GET", path(i))
				}
				kept := s.Len()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(kept), "patterns")
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<20), "MiB")
				runtime.KeepAlive(&s)
			}
		})
	}
}
