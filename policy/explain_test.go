// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

const explainRules = `
api:
  endpoints:
    - host: api.example.com
      port: 443
      protocol: rest
      enforcement: enforce
      rules:
        - allow: {method: GET, path: /repos/**}
      deny_rules:
        - {method: GET, path: /repos/secret}
  binaries: [{path: /usr/bin/curl}]
watch:
  endpoints: [{host: watch.example.com, port: 443, protocol: rest, access: read-only}]
  binaries: [{path: /usr/bin/curl}]
git:
  endpoints: [{host: git.example.com, port: 22}]
  binaries: [{path: /usr/bin/git}, {path: /usr/bin/ssh}]
wild:
  endpoints: [{host: '*.cdn.example.net', port: 443}]
`

func TestExplain(t *testing.T) {
	e := engine(t, explainRules)
	get := func(target string) *EvalHTTP { return &EvalHTTP{"GET", target} }
	for _, tt := range []struct {
		name       string
		r          EvalRequest
		permissive bool
		steps      string // "layer outcome" of each
		nearest    string // "rule distance" of each
		add        string // a part; "" for none
		advice     string
	}{
		{"allowed", EvalRequest{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/repos/a"), ResolvedIPs: []string{"1.1.1.1"}}, false, "l4 allow, ssrf allow, l7 allow", "", "", ""},
		{"not resolved", EvalRequest{Binary: "/usr/bin/git", Host: "git.example.com", Port: 22}, false, "l4 allow, ssrf skip", "", "", ""},
		{"other path", EvalRequest{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/users/*?q=1")}, false, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", `path: /users/\*`, ""},
		{"other path, permissive", EvalRequest{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/users")}, true, "l4 allow, ssrf skip, l7 audit", "api 1, git 5, watch 5", "path: /users", ""},
		{"audit", EvalRequest{Binary: "/usr/bin/curl", Host: "watch.example.com", Port: 443, HTTP: &EvalHTTP{"post", "/x"}}, false, "l4 allow, ssrf skip, l7 audit", "watch 1, api 5, git 5", "method: POST", ""},
		{"deny rule", EvalRequest{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/repos/secret")}, false, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", "", "blocked by deny rule"},
		{"malformed", EvalRequest{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/../x")}, true, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", "", "no rule allows such a request"},
		{"other binary", EvalRequest{Binary: "/bin/wget", Host: "git.example.com", Port: 22}, false, "l4 deny", "git 2, api 5, watch 5", "path: /bin/wget", ""},
		{"other binary, permissive", EvalRequest{Binary: "/bin/wget", Host: "git.example.com", Port: 22}, true, "l4 audit, ssrf skip", "git 2, api 5, watch 5", "path: /bin/wget", ""},
		{"other port", EvalRequest{Binary: "/usr/bin/git", Host: "git.example.com", Port: 443}, false, "l4 deny", "git 3, api 5, watch 5", "port: 443", ""},
		{"udp", EvalRequest{Binary: "/usr/bin/git", Host: "git.example.com", Port: 22, Protocol: "udp"}, false, "l4 deny", "git 3, api 5, watch 5", "protocol: udp", ""},
		{"misspelt", EvalRequest{Binary: "/usr/bin/curl", Host: "api.exmaple.com", Port: 443, HTTP: get("/")}, false, "l4 deny", "api 4", "host: api.exmaple.com", ""},
		{"wildcard's depth", EvalRequest{Binary: "/a", Host: "a.b.cdn.example.net", Port: 443}, false, "l4 deny", "wild 4", "host: a.b.cdn.example.net", ""},
		{"nothing like it", EvalRequest{Binary: "/a", Host: "other.org", Port: 443}, false, "l4 deny", "", "host: other.org", ""},
		{"private", EvalRequest{Binary: "/a", Host: "x.cdn.example.net", Port: 443, ResolvedIPs: []string{"10.0.0.1"}}, false, "l4 allow, ssrf deny", "wild 1", "10.0.0.1/32", ""},
		{"loopback", EvalRequest{Binary: "/a", Host: "x.cdn.example.net", Port: 443, ResolvedIPs: []string{"127.0.0.1"}}, true, "l4 allow, ssrf deny", "wild 1", "", "always-blocked"},
		{"metadata", EvalRequest{Binary: "/a", Host: "metadata.google.internal", Port: 80}, false, "l4 deny", "", "", "cloud metadata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, err := e.Explain(tt.r, tt.permissive)
			if err != nil {
				t.Fatal(err)
			}
			decision, _ := e.Evaluate(tt.r, tt.permissive)
			if x.Decision != decision {
				t.Errorf("%+v, but evaluated %+v", x.Decision, decision)
			}
			var steps, near []string
			for _, s := range x.Steps {
				steps = append(steps, s.Layer+" "+s.Outcome)
				if s.Reason == "" {
					t.Errorf("%s has no reason", s.Layer)
				}
			}
			for _, n := range x.Nearest {
				near = append(near, n.Rule+" "+string(rune('0'+n.Distance)))
			}
			if got := strings.Join(steps, ", "); got != tt.steps {
				t.Errorf("steps %s, want %s", got, tt.steps)
			}
			if got := strings.Join(near, ", "); got != tt.nearest {
				t.Errorf("nearest %s, want %s", got, tt.nearest)
			}
			if !strings.Contains(x.Add, tt.add) || (x.Add == "") != (tt.add == "") {
				t.Errorf("add %q, want %q (%s)", x.Add, tt.add, x.Advice)
			}
			if !strings.Contains(x.Advice, tt.advice) || (x.Advice == "") != (tt.advice == "") {
				t.Errorf("advice %q, want %q", x.Advice, tt.advice)
			}
			if x.Add == "" {
				return
			}
			// What is to be added allows the action.
			wider := mustCompile(t, network(t, explainRules+x.Add))
			if d, _ := wider.Evaluate(tt.r, false); d.Decision != Allow.String() {
				t.Errorf("with\n%s: %+v", x.Add, d)
			}
		})
	}
	if _, err := e.Explain(EvalRequest{}, false); err == nil {
		t.Error("no error for a malformed request")
	}
}

func TestExplainNamesAllRules(t *testing.T) {
	e := engine(t, "b: {endpoints: [{host: a.example.com, port: 1}]}\na: {endpoints: [{host: '*.example.com', port: 1}]}\n")
	x, err := e.Explain(EvalRequest{Binary: "/a", Host: "a.example.com", Port: 1}, false)
	if err != nil || !slices.Equal(x.Steps[0].Rules, []string{"a", "b"}) {
		t.Errorf("%+v, %v", x, err)
	}
	if x.Action != "/a a.example.com:1 (tcp)" {
		t.Error(x.Action)
	}
}

func FuzzFewEdits(f *testing.F) {
	f.Add("api.example.com", "api.exmaple.com")
	f.Fuzz(func(t *testing.T, a, b string) {
		if fewEdits(a, b) != fewEdits(b, a) {
			t.Errorf("%q, %q: not symmetric", a, b)
		}
	})
}
