// SPDX-License-Identifier: Apache-2.0

package decision

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// policies are those of the language's own tests.
const policies = "../../policy/testdata/policies"

func compile(t testing.TB, p *policy.Policy) *engine.Engine {
	t.Helper()
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// network makes a policy of entries of network_policies.
func network(t testing.TB, rules string) *policy.Policy {
	t.Helper()
	p, _, err := policy.Parse([]byte("version: 1\nnetwork_policies:\n  " + strings.ReplaceAll(strings.TrimSpace(rules), "\n", "\n  ") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rules compiles entries of network_policies.
func rules(t testing.TB, rules string) *engine.Engine {
	t.Helper()
	return compile(t, network(t, rules))
}

func never(t testing.TB, endpoints ...string) *engine.Endpoints {
	t.Helper()
	set, err := engine.ParseEndpoints(endpoints)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// The cases are in testdata, in the form in which they come from outside: a policy, and for each request the
// decision, enforcing and permissive.
func TestEvaluate(t *testing.T) {
	data, err := os.ReadFile("testdata/evaluate.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	engines := map[string]*engine.Engine{}
	for line := range bytes.Lines(data) {
		var tt struct {
			Policy     string
			Request    Action
			Enforcing  Answer
			Permissive *Answer // absent: the same
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&tt); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if engines[tt.Policy] == nil {
			text, err := os.ReadFile(filepath.Join(policies, tt.Policy+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := policy.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			engines[tt.Policy] = compile(t, p)
		}
		want := map[bool]Answer{false: tt.Enforcing, true: tt.Enforcing}
		if tt.Permissive != nil {
			want[true] = *tt.Permissive
		}
		for permissive, want := range want {
			v, err := Snapshot{Effective: engines[tt.Policy], Permissive: permissive}.Evaluate(tt.Request)
			if err != nil {
				t.Errorf("%s%v", line, err)
				continue
			}
			got := v.Answer
			reason := strings.HasPrefix(got.Reason, want.Reason) && (want.Reason != "") == (got.Reason != "")
			got.Reason = want.Reason
			if got != want || !reason {
				t.Errorf("%spermissive %v: got %+v, want %+v", line, permissive, v.Answer, want)
			}
		}
	}
}

func TestEvaluateMalformed(t *testing.T) {
	s := Snapshot{Effective: compile(t, policy.Default())}
	for text, want := range map[string]string{
		`{"host":"h","port":1}`:                                                                     "binary is required",
		`{"binary":"/b","port":1}`:                                                                  "host is required",
		`{"binary":"/b","host":"h"}`:                                                                "port is required",
		`{"binary":"/b","host":"h","port":1,"protocol":"icmp"}`:                                     "protocol must be tcp or udp",
		`{"binary":"/b","host":"h","port":1,"resolved_ips":[""]}`:                                   "resolved_ips",
		`{"binary":"/b","host":"h","port":1,"http":{}}`:                                             "http needs a method and a target",
		`{"binary":"/b","host":"h","port":1,"graphql":{}}`:                                          "need http",
		`{"binary":"/b","host":"h","port":1,"protocol":"udp","http":{"method":"GET","target":"/"}}`: "http needs protocol tcp",
	} {
		var a Action
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Evaluate(a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

// A field that is null is one that is absent.
func TestEvaluateNull(t *testing.T) {
	s := Snapshot{Effective: rules(t, "r:\n  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full }]")}
	for _, text := range []string{
		`{"binary":"/b","host":"h.example","port":443,"ancestors":null,"protocol":null,"resolved_ips":null,"http":null,` +
			`"websocket_text":null,"graphql":null,"jsonrpc": null }`,
		`{"binary":"/b","host":"h.example","port":443,"http":{"method":"POST","target":"/"},"graphql":null,"jsonrpc":{}}`,
	} {
		var a Action
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Evaluate(a); err != nil || e.Decision != "allow" {
			t.Errorf("%s: %+v, %v", text, e.Answer, err)
		}
	}
}

// A method that no HTTP request can have is refused in every mode.
func TestEvaluateMethod(t *testing.T) {
	s := Snapshot{Effective: rules(t, "r:\n  endpoints: [{ host: h.example, port: 443, protocol: rest, access: full }]"), Permissive: true}
	for method, want := range map[string]string{
		"PROPFIND": "allow", "M-SEARCH": "allow", "G T": "deny", "GET\r\nX: y": "deny", "GÉT": "deny", "G,T": "deny",
	} {
		for _, host := range []string{"h.example", "other.example"} {
			e, err := s.Evaluate(Action{Binary: "/b", Host: host, Port: 443, HTTP: &RequestLine{Method: method, Target: "/"}})
			if host != "h.example" && want == "allow" {
				want = "audit"
			}
			if err != nil || e.Decision != want {
				t.Errorf("%q to %s: %+v, %v, want %s", method, host, e.Answer, err, want)
			}
		}
	}
}

// The maximum policy and permissive.never decide as in a sandbox: in every mode the one, in permissive mode the
// other.
func TestMaximumAndNever(t *testing.T) {
	const effective = `
api: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full}]}
db: {endpoints: [{host: db.corp.example, port: 5432}]}
inside: {endpoints: [{host: inside.example, port: 80, allowed_ips: [10.0.0.0/8]}]}
`
	const maximum = `
api: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}]}
inside: {endpoints: [{host: inside.example, port: 80, allowed_ips: [10.1.0.0/16]}]}
any: {endpoints: [{host: '*.corp.example', port: 80}]}
`
	plain := Snapshot{Effective: rules(t, effective)}
	capped := Snapshot{Effective: rules(t, effective), Maximum: rules(t, maximum), Never: never(t, "*.corp.example", "8.8.8.8:80")}
	get := func(method, target string) *RequestLine { return &RequestLine{Method: method, Target: target} }
	for name, tt := range map[string]struct {
		action                        Action
		enforcing, permissive, reason string
		layer, free                   string // free: without maximum and never
	}{
		"within both":          {Action{Host: "api.example.com", Port: 443, HTTP: get("GET", "/")}, "allow", "allow", "", LayerL7, "allow"},
		"request too much":     {Action{Host: "api.example.com", Port: 443, HTTP: get("POST", "/")}, "deny", "deny", exceedsMaximum + "POST / not permitted", LayerL7, "allow"},
		"connection too much":  {Action{Host: "db.corp.example", Port: 5432}, "deny", "deny", exceedsMaximum + "endpoint db.corp.example:5432", LayerL4, "allow"},
		"unknown to both":      {Action{Host: "other.example.com", Port: 443}, "deny", "deny", exceedsMaximum + "endpoint other", LayerL4, "audit"},
		"never":                {Action{Host: "x.corp.example", Port: 80}, "deny", "deny", "", LayerL4, "audit"},
		"addresses of both":    {Action{Host: "inside.example", Port: 80, ResolvedIPs: []string{"10.1.2.3"}}, "allow", "allow", "", LayerL4, "allow"},
		"addresses too much":   {Action{Host: "inside.example", Port: 80, ResolvedIPs: []string{"10.1.2.3", "10.2.0.1"}}, "deny", "deny", exceedsMaximum + "allowed_ips check failed", LayerSSRF, "allow"},
		"metadata by its name": {Action{Host: "metadata.google.internal", Port: 80}, "deny", "deny", exceedsMaximum, LayerL4, "deny"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.action.Binary = "/usr/bin/curl"
			for _, permissive := range []bool{false, true} {
				s := capped
				s.Permissive = permissive
				want := tt.enforcing
				if permissive {
					want = tt.permissive
				}
				e, err := s.Evaluate(tt.action)
				if err != nil || e.Decision != want || e.Layer != tt.layer || !strings.HasPrefix(e.Reason, tt.reason) {
					t.Errorf("permissive %v: %+v, %v", permissive, e.Answer, err)
				}
				for _, d := range []Decision{e.Connection.Decision(), e.Request} {
					if d.Learnable && e.Decision == "deny" && (permissive || d.Reason != e.Reason) {
						t.Errorf("permissive %v: there is nothing to learn from %+v", permissive, d)
					}
				}
			}
			s := plain
			s.Permissive = true
			if e, err := s.Evaluate(tt.action); err != nil || e.Decision != tt.free {
				t.Errorf("without maximum and never: %+v, %v", e.Answer, err)
			}
		})
	}
	// In permissive mode a name that leads to an address of never is no way around it, unless a rule allows
	// the name.
	for host, want := range map[string]string{"other.example.com": "deny", "web.example": "allow"} {
		s := Snapshot{Effective: rules(t, "web: {endpoints: [{host: web.example, port: 80}]}"), Permissive: true, Never: never(t, "8.8.8.8:80")}
		e, err := s.Evaluate(Action{Binary: "/b", Host: host, Port: 80, ResolvedIPs: []string{"8.8.8.8"}})
		if err != nil || e.Decision != want || want == "deny" && !strings.HasPrefix(e.Reason, neverPermissive) {
			t.Errorf("%s: %+v, %v", host, e.Answer, err)
		}
		if d := s.Connect(engine.Connection{Binary: "/b", Host: host, Port: 80}).Addresses(netip.MustParseAddr("8.8.4.4")); d.Outcome != Allowed {
			t.Errorf("%s: another address: %+v", host, d)
		}
	}
}

// What cannot be resolved here is held against the maximum and never too.
func TestUnresolved(t *testing.T) {
	s := Snapshot{
		Effective: rules(t, "web: {endpoints: [{host: web.site.example, ports: [80, 81]}]}"),
		Maximum:   rules(t, "any: {endpoints: [{host: '*.site.example', ports: [80, 443]}]}\nfew: {endpoints: [{host: '*.site.example', port: 81, allowed_ips: [10.0.0.0/8]}]}"),
		Never:     never(t, "10.0.0.7:80", "*.corp.example"), Permissive: true,
	}
	for _, tt := range []struct {
		host   string
		port   uint16
		reason string // "" passes
	}{
		{"web.site.example", 80, ""},
		{"web.site.example", 81, exceedsMaximum + "allowed_ips"},
		{"other.site.example", 80, neverPermissive},
		{"other.site.example", 443, ""},
	} {
		d := s.Connect(engine.Connection{Binary: "/b", Host: tt.host, Port: tt.port}).Unresolved()
		if (d.Outcome == Allowed) != (tt.reason == "") || !strings.HasPrefix(d.Reason, tt.reason) || d.Layer != LayerSSRF {
			t.Errorf("%s:%d: %+v", tt.host, tt.port, d)
		}
	}
}

func TestMayResolve(t *testing.T) {
	enforcing := Snapshot{Effective: rules(t, "web: {endpoints: [{host: web.example, port: 80}]}"), Never: never(t, "shut.example", "half.example:80")}
	permissive := enforcing
	permissive.Permissive = true
	for name, want := range map[string][2]bool{
		"web.example": {true, true}, "other.example": {false, true}, "shut.example": {false, false}, "half.example": {false, true},
	} {
		if got := [2]bool{enforcing.MayResolve(name, name), permissive.MayResolve(name, name)}; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !enforcing.MayResolve("_http._tcp.web.example", "web.example") {
		t.Error("a service's name cannot be resolved")
	}
}
