// SPDX-License-Identifier: Apache-2.0

package prover_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
	"openshell.ai/openshell/policy/prover"
)

const enforced = "protocol: rest, enforcement: enforce"

func endpointRule(binary, endpoint string) string {
	rule := "r:\n  endpoints: [{" + endpoint + "}]\n"
	if binary != "" {
		rule += "  binaries: [{path: '" + binary + "'}]\n"
	}
	return rule
}

// Each case is one rule on each side; want is part of the reason, "" for within.
func TestWithin(t *testing.T) {
	const host = "host: a.example.com, port: 443"
	const allowed = host + ", allowed_ips: [10.0.0.0/8], "
	rest := func(rules string) string { return host + ", " + enforced + ", rules: [" + rules + "]" }
	for _, tt := range []struct {
		name                 string
		binary, endpoint     string
		maxBinary, maxOf     string
		want                 string
		alsoInMaximum, alsoP string
	}{
		{"same", "/bin/a", host, "/bin/a", host, "", "", ""},
		{"other host", "/bin/a", host, "/bin/a", "host: b.example.com, port: 443", "no rule of the maximum names this endpoint", "", ""},
		{"other port", "/bin/a", host, "/bin/a", "host: a.example.com, port: 80", "on other ports only", "", ""},
		{"ports", "/bin/a", host, "/bin/a", "host: A.example.com., ports: [80, 443]", "", "", ""},
		{"one port too many", "/bin/a", "host: a.example.com, ports: [80, 443]", "/bin/a", host, "a.example.com:80", "", ""},
		{"udp", "/bin/a", host + ", protocol: udp", "/bin/a", host, "(udp): the maximum has this host on other ports only", "", ""},
		{"other binary", "/bin/a", host, "/bin/b", host, "for other binaries only", "", ""},
		{"any binary in the maximum", "/bin/a", host, "", host, "", "", ""},
		{"any binary", "", host, "/bin/a", host, "any program", "", ""},
		{"any binary, and every path", "", host, "**", host, "any program", "", ""},
		{"binary glob", "/bin/a", host, "/bin/*", host, "", "", ""},
		{"glob in glob", "/opt/x/*", host, "/opt/**", host, "", "", ""},
		{"glob too wide", "/opt/**", host, "/opt/*", host, "other binaries", "", ""},

		{"wildcard in wildcard", "/bin/a", "host: '*.a.example.com', port: 443", "/bin/a", "host: '**.example.com', port: 443", "", "", ""},
		{"deeper wildcard", "/bin/a", "host: '**.example.com', port: 443", "/bin/a", "host: '*.example.com', port: 443", "the maximum has *.example.com only", "", ""},
		{"infix wildcard", "/bin/a", "host: 'a-*-b.example.com', port: 443", "/bin/a", "host: 'a-*.example.com', port: 443", "", "", ""},
		{"exact in wildcard", "/bin/a", host, "/bin/a", "host: '*.example.com', port: 443", "private addresses", "", ""},
		{"listed in wildcard", "/bin/a", host + ", allowed_ips: [8.8.8.0/24]", "/bin/a", "host: '*.example.com', port: 443", "", "", ""},

		{"addresses", "/bin/a", allowed, "/bin/a", allowed, "", "", ""},
		{"narrower addresses", "/bin/a", host + ", allowed_ips: [10.1.0.0/16, 10.9.9.9]", "/bin/a", allowed, "", "", ""},
		{"wider addresses", "/bin/a", allowed, "/bin/a", host + ", allowed_ips: [10.1.0.0/16]", "at 10.0.0.0/8: the maximum does not allow these addresses", "", ""},
		{"any address", "/bin/a", host, "/bin/a", allowed, "private addresses", "", ""},
		{"listed in any", "/bin/a", allowed, "/bin/a", host, "", "", ""},
		{"hostless", "/bin/a", "port: 443, allowed_ips: [10.1.0.0/16]", "/bin/a", "port: 443, allowed_ips: [10.0.0.0/8]", "", "", ""},
		{"address in hostless", "/bin/a", "host: 10.1.2.3, port: 443", "/bin/a", "port: 443, allowed_ips: [10.0.0.0/8]", "", "", ""},
		{"address outside hostless", "/bin/a", "host: 10.1.2.3, port: 443", "/bin/a", "port: 443, allowed_ips: [10.2.0.0/16]", "at 10.1.2.3/32", "", ""},
		{"allowed_ips silence another endpoint", "/bin/a", host, "/bin/a", host, "private addresses", "# openshell.ai/learned\ns:\n  binaries: [{path: /bin/a}]\n  endpoints: [{" + allowed + "}]\n", ""},

		{"connection in requests", "/bin/a", host, "/bin/a", host + ", " + enforced + ", access: full", "only what is inspected", "", ""},
		{"spliced in requests", "/bin/a", host + ", tls: skip", "/bin/a", host + ", " + enforced + ", access: full", "only what is inspected", "", ""},
		{"requests in connection", "/bin/a", rest("{allow: {method: GET, path: /x}}"), "/bin/a", host, "", "", ""},
		{"inspected by another rule", "/bin/a", host, "/bin/a", host, "only what is inspected", strings.Replace(endpointRule("/bin/b", host+", "+enforced+", access: full"), "r:", "s:", 1), ""},
		{"inspected in both", "/bin/a", host, "/bin/a", host, "", "s:\n  endpoints: [{" + host + ", " + enforced + ", access: full}]\n  binaries: [{path: /bin/b}]\n",
			"s:\n  endpoints: [{" + host + ", " + enforced + ", access: full}]\n  binaries: [{path: /bin/b}]\n"},

		{"preset", "/bin/a", host + ", " + enforced + ", access: read-only", "/bin/a", host + ", " + enforced + ", access: read-write", "", "", ""},
		{"wider preset", "/bin/a", host + ", " + enforced + ", access: read-write", "/bin/a", host + ", " + enforced + ", access: read-only", "POST /**", "", ""},
		{"HEAD in GET", "/bin/a", rest("{allow: {method: HEAD, path: /x}}"), "/bin/a", rest("{allow: {method: get, path: /x}}"), "", "", ""},
		{"GET in HEAD", "/bin/a", rest("{allow: {method: GET, path: /x}}"), "/bin/a", rest("{allow: {method: HEAD, path: /x}}"), "GET /x", "", ""},
		{"path", "/bin/a", rest("{allow: {method: GET, path: /a/*/c}}"), "/bin/a", rest("{allow: {method: GET, path: /a/**}}"), "", "", ""},
		{"upgrade", "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [tcp]}}"), "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [udp, TCP]}}"), "", "", ""},
		{"without upgrade", "/bin/a", rest("{allow: {method: GET, path: /x}}"), "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [tcp]}}"), "", "", ""},
		{"upgrade too much", "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [tcp, udp]}}"), "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [tcp]}}"), "upgrade to tcp, udp", "", ""},
		{"upgrade in any request", "/bin/a", rest("{allow: {method: GET, path: /x, upgrade: [tcp]}}"), "/bin/a", host + ", " + enforced + ", access: full", "upgrade to tcp", "", ""},
		{"path too wide", "/bin/a", rest("{allow: {method: GET, path: /a/**}}"), "/bin/a", rest("{allow: {method: GET, path: /a/*}}"), "GET /a/**: no rule", "", ""},
		{"path in a union", "/bin/a", rest("{allow: {method: GET, path: '/{a,b}/*'}}"), "/bin/a", rest("{allow: {method: '*', path: '/a/*'}}, {allow: {method: GET, path: '/b/**'}}"), "", "", ""},
		{"endpoint path", "/bin/a", rest("{allow: {method: GET, path: /v1/x}}"), "/bin/a", host + ", path: /v1/**, " + enforced + ", access: full", "", "", ""},
		{"outside the endpoint path", "/bin/a", rest("{allow: {method: GET, path: /v2/x}}"), "/bin/a", host + ", path: /v1/**, " + enforced + ", access: full", "GET /v2/x", "", ""},
		{"query", "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: '12', r: 'a'}}}"), "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: {any: ['1*', '2']}}}}"), "", "", ""},
		{"no query", "/bin/a", rest("{allow: {method: GET, path: /x}}"), "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: '1'}}}"), "GET /x", "", ""},
		{"wider query", "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: '*'}}}"), "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: '1*'}}}"), "q=*", "", ""},

		{"denied", "/bin/a", rest("{allow: {method: GET, path: /x/**}}"), "/bin/a", rest("{allow: {method: GET, path: /**}}") + ", deny_rules: [{method: GET, path: /x/secret}]", "the maximum denies GET /x/secret", "", ""},
		{"denied in both", "/bin/a", rest("{allow: {method: GET, path: /x/**}}") + ", deny_rules: [{method: '*', path: /**/secret}]", "/bin/a", rest("{allow: {method: GET, path: /**}}") + ", deny_rules: [{method: GET, path: /x/secret}]", "", "", ""},
		{"denied elsewhere", "/bin/a", rest("{allow: {method: GET, path: /x/**}}"), "/bin/a", rest("{allow: {method: GET, path: /**}}") + ", deny_rules: [{method: POST, path: /x/**}, {method: GET, path: /y/**}]", "", "", ""},
		{"denied another value", "/bin/a", rest("{allow: {method: GET, path: /x, query: {q: '1'}}}"), "/bin/a", rest("{allow: {method: GET, path: /x}}") + ", deny_rules: [{method: GET, path: /x, query: {q: '2*'}}]", "", "", ""},
		{"denied by another rule", "/bin/a", rest("{allow: {method: GET, path: /x}}"), "/bin/a", rest("{allow: {method: GET, path: /x}}"), "denies", "s:\n  endpoints: [{" + host + ", " + enforced + ", access: full, deny_rules: [{method: GET, path: /x}]}]\n  binaries: [{path: /bin/b}]\n", ""},

		{"audit", "/bin/a", host + ", protocol: rest, access: read-only", "/bin/a", host + ", " + enforced + ", access: read-write", "enforcement is audit", "", ""},
		{"audit in full", "/bin/a", host + ", protocol: rest, access: read-only", "/bin/a", host + ", " + enforced + ", access: full", "", "", ""},
		{"audit in audit", "/bin/a", host + ", protocol: rest, access: full", "/bin/a", host + ", protocol: rest, enforcement: audit, access: read-only", "", "", ""},
		{"enforced in audit", "/bin/a", rest("{allow: {method: DELETE, path: /**}}"), "/bin/a", host + ", protocol: rest, access: read-only", "", "", ""},
		{"encoded slash", "/bin/a", host + ", " + enforced + ", access: full, allow_encoded_slash: true", "/bin/a", host + ", " + enforced + ", access: full", "allow_encoded_slash", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := policytest.Network(t, endpointRule(tt.binary, tt.endpoint)+tt.alsoP)
			maximum := policytest.Network(t, endpointRule(tt.maxBinary, tt.maxOf)+tt.alsoInMaximum)
			err := prover.Within(p, maximum)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var excess *prover.ExcessError
			if !errors.As(err, &excess) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if x := excess.Excesses[0]; x.Rule != "r" || !strings.HasPrefix(x.Field, "network_policies.r.endpoints[0]") {
				t.Errorf("%+v", x)
			}
		})
	}
}

// A deny rule counts only where it is enforced: the more specific endpoint logs
// what the other denies.
func TestWithinOfDenialsThatAreOnlyLogged(t *testing.T) {
	endpoints := func(path, enforcement string) *policy.Policy {
		return policytest.Network(t, `
r:
  endpoints:
    - { host: h.example, port: 443, protocol: rest, enforcement: enforce, rules: [{ allow: { method: GET, path: /x/a* } }], deny_rules: [{ method: GET, path: /x/? }] }
    - { host: "*.h.example", port: 443, protocol: rest, enforcement: enforce, access: full }
    - { host: "", allowed_ips: [10.0.0.0/8], port: 443, path: "`+path+`", protocol: rest, enforcement: `+enforcement+`, access: full }
`)
	}
	logged, same, enforced := endpoints("/x/**", "audit"), endpoints("/**", "enforce"), endpoints("/x/**", "enforce")
	r := decision.Action{Binary: "/bin/a", Host: "h.example", Port: 443, HTTP: &decision.RequestLine{Method: "GET", Target: "/x/a"}}
	for p, want := range map[*policy.Policy]string{logged: "audit", same: "deny", enforced: "deny"} {
		if d, err := evaluator(t, p)(r); err != nil || d.Decision != want {
			t.Errorf("%+v, %v, want %s", d, err, want)
		}
	}
	if prover.Within(logged, same) == nil {
		t.Error("what is logged is within what is denied")
	}
	if err := prover.Within(enforced, same); err != nil {
		t.Error(err)
	}
}

// A learned exact host is not trusted with private addresses, so that a wildcard
// of the maximum contains it.
func TestWithinOfLearned(t *testing.T) {
	p := policytest.Network(t, endpointRule("/bin/a", "host: a.example.com, port: 443"))
	maximum := policytest.Network(t, endpointRule("", "host: '*.example.com', port: 443"))
	if prover.Within(p, maximum) == nil {
		t.Error("an exact host may have private addresses, and is within a wildcard")
	}
	p.Network["r"].Learned = true
	if err := prover.Within(p, maximum); err != nil {
		t.Error(err)
	}
	// Only public addresses are reachable there, and none at all where the
	// maximum trusts the host.
	p = policytest.Network(t, endpointRule("/bin/a", "host: a.example.com, port: 6443"))
	p.Network["r"].Learned = true
	if maximum = policytest.Network(t, endpointRule("", "host: a.example.com, port: 6443")); prover.Within(p, maximum) == nil {
		t.Error("control plane port")
	}
}

func TestWithinOfFiles(t *testing.T) {
	for _, tt := range []struct{ name, p, maximum, want string }{
		{"same", "filesystem_policy: {read_only: [/usr/], read_write: [/data]}", "filesystem_policy: {read_only: [/usr], read_write: [//data]}", ""},
		{"below", "filesystem_policy: {read_only: [/usr/lib, /data/x], read_write: [/data/y]}", "filesystem_policy: {read_only: [/usr], read_write: [/data]}", ""},
		{"root", "filesystem_policy: {read_only: [/usr]}", "filesystem_policy: {read_only: [/]}", ""},
		{"sibling", "filesystem_policy: {read_only: [/usr2]}", "filesystem_policy: {read_only: [/usr]}", "read-only /usr2"},
		{"above", "filesystem_policy: {read_only: [/]}", "filesystem_policy: {read_only: [/usr]}", "filesystem_policy.read_only[0]: read-only /"},
		{"writable", "filesystem_policy: {read_write: [/data]}", "filesystem_policy: {read_only: [/data]}", "filesystem_policy.read_write[0]"},
		{"workdir", "filesystem_policy: {include_workdir: true}", "filesystem_policy: {read_write: [/]}", "overly broad"},
		{"workdir not", "filesystem_policy: {include_workdir: true}", "filesystem_policy: {read_write: [/home]}", "include_workdir"},
		{"absent means workdir", "landlock: {compatibility: best_effort}", "filesystem_policy: {read_only: [/usr]}", "include_workdir"},
		{"absent in both", "landlock: {compatibility: hard_requirement}", "landlock: {compatibility: best_effort}", ""},
		{"unconfined", "landlock: {compatibility: best_effort}", "landlock: {compatibility: hard_requirement}", "landlock.compatibility"},
		{"user", "process: {run_as_user: '1000'}", "process: {run_as_group: '5'}", "process.run_as_group: anybody: the maximum says 5"},
		{"same user", "process: {run_as_user: '1000'}", "process: {run_as_user: '1000'}", ""},
	} {
		maximum, _, err := policy.Parse([]byte("version: 1\n" + tt.maximum))
		if err == nil {
			err = prover.Within(policytest.MustParse(t, "version: 1\n"+tt.p), maximum)
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestEveryPolicyIsWithinItself(t *testing.T) {
	for _, name := range []string{"policies/agent.yaml", "policies/build.yaml", "policies/observe.yaml", "policies/locked.yaml", "learned.yaml"} {
		if err := prover.Within(policytest.Load(t, name), policytest.Load(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	merged := policy.Merge(policytest.Load(t, "policies/agent.yaml"), policytest.Load(t, "learned.yaml"))
	if err := prover.Within(merged, merged); err != nil {
		t.Error(err)
	}
	if err := prover.Within(policytest.Load(t, "learned.yaml"), merged); err != nil {
		t.Log(err) // the base's deny rules narrow what was learned
	}
}

func TestWithinRefusesInvalid(t *testing.T) {
	var problems policy.Errors
	if err := prover.Within(&policy.Policy{}, policy.Default()); !errors.As(err, &problems) {
		t.Error(err)
	}
	if err := prover.Within(policy.Default(), &policy.Policy{}); !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), "maximum: ") {
		t.Error(err)
	}
	p := policytest.Network(t, endpointRule("/bin/a", "host: a.example.com, port: 443"))
	p.Network = map[string]*policy.Rule{}
	const maxExcesses = 100
	for i := range 3 * maxExcesses {
		p.Network[fmt.Sprint(i)] = &policy.Rule{Binaries: []policy.Binary{{Path: "/bin/a"}}, Endpoints: []policy.Endpoint{{Host: "a.example.com", Port: uint16(i + 1)}}}
	}
	var excess *prover.ExcessError
	if err := prover.Within(p, &policy.Policy{Version: 1}); !errors.As(err, &excess) || len(excess.Excesses) != maxExcesses || excess.More != 2*maxExcesses {
		t.Errorf("%d, %d more", len(excess.Excesses), excess.More)
	}
}

// Patterns whose automata grow beyond measure end as "cannot be shown".
func TestWithinIsBounded(t *testing.T) {
	rest := func(path string) string {
		return "host: a.example.com, port: 443, " + enforced + ", rules: [{allow: {method: GET, path: '" + path + "'}}]"
	}
	exp := "/*a" + strings.Repeat("?", 60)
	if err := prover.Within(policytest.Network(t, endpointRule("/bin/a", rest("/*"))), policytest.Network(t, endpointRule("/bin/a", rest(exp)))); err == nil {
		t.Error("not contained")
	}
	if err := prover.Within(policytest.Network(t, endpointRule("/bin/a", rest(exp+"*"))), policytest.Network(t, endpointRule("/bin/a", rest("/*a*"+strings.Repeat("?", 60))))); err == nil || !strings.Contains(err.Error(), "too complex") {
		t.Errorf("%v: is the bound ever reached?", err)
	}
}

func BenchmarkWithin(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
		var rules []policy.L7Allow
		for i := range n {
			p.Network[fmt.Sprintf("r%d", i)] = &policy.Rule{Learned: true, Binaries: []policy.Binary{{Path: "/usr/bin/curl"}},
				Endpoints: []policy.Endpoint{{Host: fmt.Sprintf("h%d.example.com", i), Port: 443}}}
			rules = append(rules, policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: fmt.Sprintf("/p/%d/x", i)}})
		}
		p.Network["paths"] = &policy.Rule{Binaries: []policy.Binary{{Path: "/usr/bin/curl"}}, Endpoints: []policy.Endpoint{{Host: "rest.example.net", Port: 443,
			Protocol: policy.ProtocolREST, Enforcement: policy.EnforcementEnforce, Rules: rules}}}
		maximum := policytest.Network(b, "m:\n  endpoints:\n    - {host: '**.example.com', port: 443}\n    - {host: rest.example.net, port: 443, "+enforced+
			", rules: [{allow: {method: '*', path: '/p/*/*'}}], deny_rules: [{method: POST, path: /admin/**}]}\n")
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := prover.Within(p, maximum); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("itself/rules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := prover.Within(p, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
