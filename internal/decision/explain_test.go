// SPDX-License-Identifier: Apache-2.0

package decision

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
	p := network(t, explainRules)
	e := Snapshot{Effective: compile(t, p)}
	get := func(target string) *RequestLine { return &RequestLine{Method: "GET", Target: target} }
	for _, tt := range []struct {
		name       string
		r          Action
		permissive bool
		steps      string // "layer outcome" of each
		nearest    string // "rule distance" of each
		add        string // a part; "" for none
		advice     string
	}{
		{"allowed", Action{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/repos/a"), ResolvedIPs: []string{"1.1.1.1"}}, false, "l4 allow, ssrf allow, l7 allow", "", "", ""},
		{"not resolved", Action{Binary: "/usr/bin/git", Host: "git.example.com", Port: 22}, false, "l4 allow, ssrf skip", "", "", ""},
		{"other path", Action{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/users/*?q=1")}, false, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", `path: /users/\*`, ""},
		{"other path, permissive", Action{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/users")}, true, "l4 allow, ssrf skip, l7 audit", "api 1, git 5, watch 5", "path: /users", ""},
		{"audit", Action{Binary: "/usr/bin/curl", Host: "watch.example.com", Port: 443, HTTP: &RequestLine{Method: "post", Target: "/x"}}, false, "l4 allow, ssrf skip, l7 audit", "watch 1, api 5, git 5", "method: POST", ""},
		{"deny rule", Action{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/repos/secret")}, false, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", "", "blocked by deny rule"},
		{"malformed", Action{Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, HTTP: get("/../x")}, true, "l4 allow, ssrf skip, l7 deny", "api 1, git 5, watch 5", "", "no rule allows such a request"},
		{"other binary", Action{Binary: "/bin/wget", Host: "git.example.com", Port: 22}, false, "l4 deny", "git 2, api 5, watch 5", "path: /bin/wget", ""},
		{"other binary, permissive", Action{Binary: "/bin/wget", Host: "git.example.com", Port: 22}, true, "l4 audit, ssrf skip", "git 2, api 5, watch 5", "path: /bin/wget", ""},
		{"other port", Action{Binary: "/usr/bin/git", Host: "git.example.com", Port: 443}, false, "l4 deny", "git 3, api 5, watch 5", "port: 443", ""},
		{"udp", Action{Binary: "/usr/bin/git", Host: "git.example.com", Port: 22, Protocol: "udp"}, false, "l4 deny", "git 3, api 5, watch 5", "protocol: udp", ""},
		{"misspelt", Action{Binary: "/usr/bin/curl", Host: "api.exmaple.com", Port: 443, HTTP: get("/")}, false, "l4 deny", "api 4", "host: api.exmaple.com", ""},
		{"wildcard's depth", Action{Binary: "/a", Host: "a.b.cdn.example.net", Port: 443}, false, "l4 deny", "wild 4", "host: a.b.cdn.example.net", ""},
		{"nothing like it", Action{Binary: "/a", Host: "other.org", Port: 443}, false, "l4 deny", "", "host: other.org", ""},
		{"private", Action{Binary: "/a", Host: "x.cdn.example.net", Port: 443, ResolvedIPs: []string{"10.0.0.1"}}, false, "l4 allow, ssrf deny", "wild 1", "10.0.0.1/32", ""},
		{"loopback", Action{Binary: "/a", Host: "x.cdn.example.net", Port: 443, ResolvedIPs: []string{"127.0.0.1"}}, true, "l4 allow, ssrf deny", "wild 1", "", "always-blocked"},
		{"metadata", Action{Binary: "/a", Host: "metadata.google.internal", Port: 80}, false, "l4 deny", "", "", "cloud metadata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := e
			s.Permissive = tt.permissive
			x, err := s.Explain(p, tt.r)
			if err != nil {
				t.Fatal(err)
			}
			evaluated, _ := s.Evaluate(tt.r)
			if x.Decision != evaluated.Answer {
				t.Errorf("%+v, but evaluated %+v", x.Decision, evaluated.Answer)
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
			wider := Snapshot{Effective: rules(t, explainRules+x.Add)}
			if d, _ := wider.Evaluate(tt.r); d.Decision != "allow" {
				t.Errorf("with\n%s: %+v", x.Add, d.Answer)
			}
		})
	}
	if _, err := e.Explain(p, Action{}); err == nil {
		t.Error("no error for a malformed request")
	}
}

func TestExplainNamesAllRules(t *testing.T) {
	p := network(t, "b: {endpoints: [{host: a.example.com, port: 1}]}\na: {endpoints: [{host: '*.example.com', port: 1}]}\n")
	x, err := Snapshot{Effective: compile(t, p)}.Explain(p, Action{Binary: "/a", Host: "a.example.com", Port: 1})
	if err != nil || !slices.Equal(x.Steps[0].Rules, []string{"a", "b"}) {
		t.Errorf("%+v, %v", x, err)
	}
	if x.Action != "/a a.example.com:1 (tcp)" {
		t.Error(x.Action)
	}
}

// What only the maximum denies is said to be, and no rule is made up for it; permissive.never asks for a rule.
func TestExplainMaximumAndNever(t *testing.T) {
	p := network(t, explainRules)
	s := Snapshot{Effective: compile(t, p), Maximum: rules(t, "api: {endpoints: [{host: '*.example.com', port: 443}]}")}
	x, err := s.Explain(p, Action{Binary: "/usr/bin/git", Host: "git.example.com", Port: 22})
	if err != nil || x.Decision.Decision != "deny" || len(x.Steps) != 1 || !strings.HasPrefix(x.Steps[0].Reason, exceedsMaximum) ||
		x.Add != "" || !strings.Contains(x.Advice, exceedsMaximum) {
		t.Errorf("%+v, %v", x, err)
	}
	s = Snapshot{Effective: compile(t, p), Permissive: true, Never: never(t, "db.example.com")}
	x, err = s.Explain(p, Action{Binary: "/a", Host: "db.example.com", Port: 443})
	if err != nil || x.Decision.Decision != "deny" || !strings.HasPrefix(x.Decision.Reason, neverPermissive) || !strings.Contains(x.Add, "host: db.example.com") {
		t.Errorf("%+v, %v", x, err)
	}
}
