// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/policies/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, warnings, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("an example should not warn: %s", w)
			}
		})
	}
}

func TestParseFields(t *testing.T) {
	got := load(t, "policies/build.yaml").Network["artifact_upload"]
	want := &Rule{
		Endpoints: []Endpoint{{
			Host: "artifacts.corp.example", Path: "/upload/**", Port: 443,
			Protocol: "rest", Enforcement: "enforce",
			Rules: []L7Allow{{L7Match{Method: "PUT", Path: "/upload/builds/*/*.tar.gz", Query: map[string]Matcher{
				"channel": {[]string{"nightly", "release-*"}},
			}}}},
			DenyRules:  []L7Match{{Method: "*", Path: "**", Query: map[string]Matcher{"overwrite": {[]string{"*"}}}}},
			AllowedIPs: []string{"10.20.0.0/16"},
		}},
		Binaries: []Binary{{"/usr/bin/curl"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFilesystemDefaults(t *testing.T) {
	tests := map[string]bool{
		"version: 1":                                             true,  // no section
		"version: 1\nfilesystem_policy: {}":                      false, // a section without the key
		"version: 1\nnetwork_policies:":                          true,
		"version: 1\nfilesystem_policy: {include_workdir: true}": true,
	}
	for text, want := range tests {
		if got := mustParse(t, text).FilesystemRules().IncludeWorkdir; got != want {
			t.Errorf("%q: include_workdir %v, want %v", text, got, want)
		}
	}
}

// An endpoint and a rule around it, to vary one field of.
func endpointYAML(fields string) string {
	return "version: 1\nnetwork_policies:\n  r:\n    binaries: [{path: /bin/x}]\n    endpoints:\n      - {" + fields + "}\n"
}

func TestParseErrors(t *testing.T) {
	const rest = "host: h.example, port: 443, protocol: rest, enforcement: enforce, "
	tests := []struct{ text, want string }{
		{"", "not valid YAML"},
		{"[]", "1:1: must be an object, not a list"},
		{"version: 1\nversion: 1", "2:1: version: is given twice"},
		{"a: [", "not valid YAML"},
		{"version: 1\n---\nversion: 1", "not valid YAML"},
		{"network_policies: {}", "1:1: version: is required: add version: 1"},
		{"version: 2", "1:10: version: must be 1, not 2"},
		{"version: '1'", "version: must be a number, not a string"},
		{"version: 0x1", "not a plain decimal number"},
		{"version: 1\nnetwork_polices: {}", `2:1: network_polices: unknown field "network_polices": did you mean "network_policies"?`},
		{"version: 1\nnetwork_middlewares: {a: {}}", "2:23: network_middlewares.a: middlewares are not implemented"},
		{"version: 1\nlandlock: {compatibility: maybe}", "landlock.compatibility: must be best_effort or hard_requirement"},
		{"version: 1\nprocess: {run_as_user: root}", "run_as_user must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got 'root'"},
		{"version: 1\nprocess: {run_as_user: 1000}", "must be a string, not a number (quote it"},
		{"version: 1\nfilesystem_policy: {read_only: [etc]}", "2:33: filesystem_policy.read_only[0]: path must be absolute (start with '/'): etc"},
		{"version: 1\nfilesystem_policy: {read_only: [/a/../b]}", "path contains '..' traversal component: /a/../b"},
		{"version: 1\nfilesystem_policy: {read_write: [//]}", "read-write path is overly broad: //"},
		{"version: 1\nfilesystem_policy: {read_write: [/./]}", "read-write path is overly broad: /./"},
		{"version: 1\nfilesystem_policy: {read_write: [/proc]}", "2:34: filesystem_policy.read_write[0]: leads to the memory of processes, /proc/PID/mem: make it read_only, or name the files below it: /proc"},
		{"version: 1\nfilesystem_policy: {read_only: [/" + strings.Repeat("x", 4096) + "]}", "path exceeds maximum length (4097 > 4096)"},
		{"version: 1\nfilesystem_policy: {read_only: [" + strings.Repeat("/a,", 1025) + "]}", "too many filesystem paths (1025 > 1024)"},
		{"version: 1\nfilesystem_policy: {include_workdir: yes}", "must be true or false, not a string"},
		{"version: 1\nnetwork_policies: {r: }", "must be an object, not empty"},
		{"version: 1\nnetwork_policies: {'': {binaries: [{path: /b}]}}", "a rule's key must not be empty"},
		{"version: 1\nnetwork_policies: {r: {binaries: []}}", "network_policies.r.binaries: is an empty list: name binaries, or remove it to mean any"},
		{"version: 1\nnetwork_policies: {r: {binaries: [{path: curl}]}}", "path must be absolute"},
		{"version: 1\nnetwork_policies: {r: {binaries: [{path: '/usr/{a*'}]}}", "unclosed '{'"},
		{"version: 1\nx: &a {<<: *a}", "unknown field"},
		{endpointYAML("<<: {host: h}"), "merge keys are not supported"},
		{endpointYAML("port: 443"), "endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"},
		{endpointYAML("port: 443, protocol: tcp, allowed_ips: [10.0.0.0/8]"), "endpoint host must not be empty"},
		{endpointYAML("host: 10.0.0.1, port: 443, protocol: tcp"), "must use a DNS hostname, not an IP literal"},
		{endpointYAML("host: h.example"), "endpoint 'h.example' must declare at least one port"},
		{endpointYAML("host: h.example, port: 0"), "invalid port 0; expected 1..=65535"},
		{endpointYAML("host: h.example, port: 65536"), "invalid port 65536; expected 1..=65535"},
		{endpointYAML("host: h.example, port: 1, ports: [2]"), "port and ports are mutually exclusive"},
		{endpointYAML("host: h.example, port: 1, protocol: ftp"), "unknown protocol 'ftp'"},
		{endpointYAML("host: h.example, port: 1, credential_signing: sigv4"), "credential_signing is not supported yet"},
		{endpointYAML("host: h.example, port: 1, tls: maybe"), `unsupported tls value "maybe"`},
		{endpointYAML("host: h.example, port: 1, enforcement: enforced"), "must be enforce or audit"},
		{endpointYAML("host: h.example, port: 1, access: all"), "must be read-only, read-write or full"},
		{endpointYAML("host: h.example, port: 1, access: read-only"), "access read-only requires protocol: rest"},
		{endpointYAML("host: h.example, port: 1, rules: [{allow: {method: GET, path: /}}]"), "rules require protocol: rest"},
		{endpointYAML("host: h.example, port: 1, deny_rules: [{method: GET, path: /}]"), "deny_rules require protocol (L7 inspection must be enabled)"},
		{endpointYAML("host: h.example, port: 1, path: /v1/**"), "path requires protocol: rest"},
		{endpointYAML("host: h.example, port: 1, protocol: udp, tls: skip"), "tls does not apply to protocol udp"},
		{endpointYAML(strings.TrimSuffix(rest, ", ")), "protocol requires rules or access to define allowed traffic"},
		{endpointYAML(rest + "rules: []"), "rules is an empty list"},
		{endpointYAML(rest + "access: full, deny_rules: []"), "deny_rules is an empty list"},
		{endpointYAML(rest + "access: full, rules: [{allow: {method: GET, path: /}}]"), "rules and access are mutually exclusive"},
		{endpointYAML(rest + "deny_rules: [{method: GET, path: /}]"), "deny_rules require rules or access to define the base allow set"},
		{endpointYAML(rest + "access: full, tls: skip"), "tls: skip cannot be combined with protocol: rest"},
		{endpointYAML(rest + "access: full, path: v1"), "path must start with '/' or be '**'"},
		{endpointYAML(rest + "rules: [{method: GET, path: /}]"), "has no allow clause"},
		{endpointYAML(rest + "rules: [{allow: {path: /}}]"), "rules[0].allow.method: is required"},
		{endpointYAML(rest + "rules: [{allow: {method: GET}}]"), "rules[0].allow.path: is required"},
		{endpointYAML(rest + "rules: [{allow: {method: GET, path: x}}]"), "path must start with '/' or be '**'"},
		{endpointYAML(rest + "rules: [{allow: {method: G T, path: /}}]"), "G T is not an HTTP method"},
		{endpointYAML(rest + "rules: [{allow: {method: GET, path: '/[a'}}]"), "unclosed '['"},
		{endpointYAML(rest + "rules: [{allow: {method: GET, path: '/[b-a]'}}]"), "invalid character class range"},
		{endpointYAML(rest + "rules: [{allow: {operation_type: query}}]"), "GraphQL rule fields are only valid for protocol graphql or websocket, not rest"},
		{endpointYAML(rest + "rules: [{allow: {method: GET, path: /, query: {a: {any: []}}}}]"), "must be a glob or {any: [globs]}"},
		{endpointYAML(rest + "rules: [{allow: {method: GET, path: /, query: {a: {any: [x], glob: y}}}}]"), "any and glob are mutually exclusive"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: [127.0.0.0/30]"), "allowed_ips entry 127.0.0.0/30 falls within always-blocked range (loopback/link-local/unspecified)"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: [0.0.0.0/0]"), "falls within always-blocked range"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: ['::ffff:127.0.0.1']"), "falls within always-blocked range"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: ['fd00:ec2::254']"), "falls within always-blocked range"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: [10.0.0.0/33]"), "invalid address or CIDR prefix"},
		{endpointYAML(`host: h.example, port: 1}` + "\n    name: \"a\\u202eb\"\n    # {"), "contains a control or invisible character"},
	}
	for _, tt := range tests {
		_, _, err := Parse([]byte(tt.text))
		var all Errors
		if !errors.As(err, &all) {
			t.Errorf("%.120q: error %v, want Errors with %q", tt.text, err, tt.want)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.120q:\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestParseReportsAllProblems(t *testing.T) {
	text := `version: 1
network_policies:
  a:
    endpoints:
      - host: "*.com"
        port: 443
      - host: https://x.example
        port: 1
    binaries:
      - path: relative
`
	_, _, err := Parse([]byte(text))
	want := []string{
		"5:15: network_policies.a.endpoints[0].host: TLD wildcard '*.com' is not allowed; use subdomain wildcards like '*.example.com' instead",
		"7:15: network_policies.a.endpoints[1].host: host https://x.example must not have a scheme: give only the name",
		"10:15: network_policies.a.binaries[0].path: path must be absolute (start with '/'): relative",
	}
	var all Errors
	if !errors.As(err, &all) || len(all) != len(want) {
		t.Fatalf("got %v", err)
	}
	for i := range want {
		if all[i].Error() != want[i] {
			t.Errorf("got  %s\nwant %s", all[i], want[i])
		}
	}
}

// What is wrong with one field does not hide what is wrong with another, and
// nothing is said twice. Each line that is wrong says so.
func TestParseReportsAllProblemsOfAllKinds(t *testing.T) {
	text := `version: 2 # must be 1
bogus: 1 # unknown field "bogus"
filesystem_policy:
  include_workdir: maybe # must be true or false
  read_only:
    - etc # must be absolute
    - 5 # must be a string
    - /a/../b # '..' traversal
  read_write: /tmp # must be a list
landlock: { compatibility: hard } # must be best_effort
process:
  run_as_user: root # run_as_user must be 'sandbox'
  run_as_group: 0 # must be a string
network_policies:
  a:
    endpoints:
      - host: "*.com" # TLD wildcard
        port: 70000 # invalid port 70000
      - host: ok.example.com
        port: 443
        protocol: rest
        enforcment: enforce # did you mean "enforcement"?
        rules:
          - allow: { method: GET, path: nope } # must start with '/'
          - allow: { method: GET, path: [] } # must be a string
          - { tool: x } # has no allow clause; unknown field "tool"
      - hots: x # did you mean "host"?
        port: 443
        protocol: rest
        access: 5 # must be a string
      - port: 8443 # host must not be empty
        protocol: json-rpc
        access: full # protocol json-rpc does not support access presets
      - { host: b.example.com, ports: 443 } # must be a list
      - host: c.example.com # must declare at least one port
        allowed_ips: [127.0.0.1, 1.2.3] # always-blocked range; invalid address
        credential_signing: sigv4 # not supported yet
    binaries: [] # is an empty list
  b:
    endpoints:
      - { host: d.example.com, ports: [0, 99999, abc] } # invalid port 0; invalid port 99999; must be a number
      - { host: e.example.com, port: 443, tls: skip } # say one thing here
      - { host: e.example.com, port: 443, protocol: ftp } # unknown protocol 'ftp'; overlap on port 443
      - ssh # must be an object
    binaries:
      - path: curl # must be absolute
      - {} # is required
      - /usr/bin/x # must be an object
  b: # is given twice
    endpoints: []
`
	want := map[int]int{}
	for i, line := range strings.Split(text, "\n") {
		_, wrong, found := strings.Cut(line, "# ")
		if found && !strings.Contains(wrong, "say one thing") {
			want[i+1] = 1 + strings.Count(wrong, "; ")
		}
	}
	_, _, err := Parse([]byte(text))
	var all Errors
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	got := map[int]int{}
	lines := strings.Split(text, "\n")
	for _, p := range all {
		got[p.Line]++
		_, wrong, _ := strings.Cut(lines[max(p.Line, 1)-1], "# ")
		matches := func(part string) bool { return strings.Contains(p.Reason, part) }
		if !slices.ContainsFunc(strings.Split(wrong, "; "), matches) {
			t.Errorf("%s: not expected", p)
		}
	}
	for line, n := range want {
		if got[line] != n {
			t.Errorf("line %d: %d problems, want %d: %s", line, got[line], n, lines[line-1])
		}
	}
}

// Every problem has a place, also where the file is not YAML.
func TestParsePlacesSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "1:1: not valid YAML: the policy is empty",
		"# nothing\n":               "1:1: not valid YAML: the policy is empty",
		"version: 1\n---\nx: 1\n":   "2:1: not valid YAML: a second document",
		"version: 1\n---\nx: [1\n":  "not valid YAML: did not find",
		"version: 1\nxé: \xff\n":    "2:5: not valid YAML: is not valid UTF-8",
		"version: 1\n\tx: 1\n":      "2:1: not valid YAML: found a tab",
		"version: 1\nx: *a\n":       "2:4: not valid YAML: unknown anchor",
		"version: 1\nx: [a\ny: b\n": "3:2: not valid YAML: did not find",
	} {
		_, _, err := Parse([]byte(text))
		var all Errors
		if !errors.As(err, &all) || len(all) != 1 || all[0].Line == 0 || !strings.Contains(all[0].Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// A section that is empty is one that is absent.
func TestParseEmptySections(t *testing.T) {
	p := mustParse(t, "version: 1\nfilesystem_policy:\nlandlock: ~\nprocess: null\nnetwork_policies:\nnetwork_middlewares:\n")
	if p.Filesystem != nil || p.Landlock != nil || p.Process != nil || !p.FilesystemRules().IncludeWorkdir {
		t.Errorf("%+v", p)
	}
}

func TestParseWarnings(t *testing.T) {
	tests := []struct{ text, want string }{
		{"version: 1\nnetwork_policies: {r: {endpoints: [{host: h.example, port: 1}]}}", "2:23: network_policies.r: has no binaries: any program may use its endpoints"},
		{"version: 1\nnetwork_policies: {r: {binaries: [{path: /b, harness: true}]}}", "is deprecated and has no effect"},
		{"version: 1\nprocess: {run_as_user: sandbox}", "has no effect: the container's user"},
		{endpointYAML("host: h.example, port: 1, tls: terminate"), `"terminate" is deprecated`},
		{endpointYAML("host: h.example, port: 1, access: full"), "have no effect without protocol: rest"},
		{endpointYAML("host: h.example, port: 1, protocol: rest, access: read-only"), "enforcement is audit by default"},
		{endpointYAML("host: h.example, port: 1, allowed_ips: [10.0.0.0/8]"), "very broad range"},
		{endpointYAML("host: 127.0.0.1, port: 1"), "is never reachable"},
		{endpointYAML("host: metadata.google.internal, port: 1"), "is never reachable"},
		{endpointYAML("host: h.example, port: 1, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /%61}}]"), "never matches: paths are compared in one spelling, write /a"},
		{endpointYAML(`host: h.example, port: 1, protocol: rest, enforcement: enforce, rules: [{allow: {method: OPTIONS, path: '\*'}}]`), "names the server as a whole, but OpenShell itself would refuse"},
		{endpointYAML("host: h.example, port: 1, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: '/a?b=1'}}]"), "'?' stands for one character"},
	}
	for _, tt := range tests {
		_, warnings, err := Parse([]byte(tt.text))
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		found := false
		for _, w := range warnings {
			found = found || strings.Contains(w.String(), tt.want)
		}
		if !found {
			t.Errorf("%q: warnings %v, want %q", tt.text, warnings, tt.want)
		}
	}
}

func TestParseWarnsInOrder(t *testing.T) {
	_, warnings, err := Parse([]byte("version: 1\nnetwork_policies:\n  b: {binaries: [{path: /b}], endpoints: []}\n  a: {endpoints: [{host: h.example, port: 1}]}\n"))
	if err != nil || len(warnings) != 2 || warnings[0].Line != 3 || warnings[1].Line != 4 {
		t.Errorf("%v, %v", warnings, err)
	}
}

// Fields of OpenShell's that ask for nothing are no reason to refuse a policy.
func TestParseVacuousUnsupportedFields(t *testing.T) {
	mustParse(t, endpointYAML(`host: h.example, port: 1, allow_uninspected_credentials: false, signing_region: "", graphql_max_body_bytes: 0, mcp: {}`))
	mustParse(t, "version: 1\nnetwork_middlewares: {}")
}

func TestParseLimitsAliases(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nnetwork_policies:\n  a:\n    endpoints:\n      - &e {host: h.example, port: 443, allowed_ips: &l [")
	b.WriteString(strings.Repeat("10.0.0.1,", 2000) + "]}\n")
	b.WriteString(strings.Repeat("      - *e\n", 2000))
	_, _, err := Parse([]byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "aliases expand to more than") {
		t.Errorf("got %.200v", err)
	}
	if _, _, err := Parse(make([]byte, maxPolicyBytes+1)); err == nil || !strings.Contains(err.Error(), "bytes, more than") {
		t.Errorf("size: got %v", err)
	}
}

func TestProcessMemory(t *testing.T) {
	for _, p := range []string{
		"/proc", "/proc/", "//proc/.", "/proc/self", "/proc/thread-self/", "/proc/1", "/proc/self/mem", "/proc/12/mem",
		"/proc/self/task", "/proc/1/task/2", "/proc/1/task/2/mem", "/proc/thread-self/mem",
	} {
		if !ProcessMemory(p) {
			t.Errorf("%s does not lead to it", p)
		}
	}
	for _, p := range []string{
		"/", "/procs", "/proc/sys", "/proc/sys/net", "/proc/self/oom_score_adj", "/proc/1/task/2/comm", "/proc/self/memory",
		"/proc/self/attr", "/proc/mem", "/work/proc/self/mem", "/proc/sys/self",
	} {
		if ProcessMemory(p) {
			t.Errorf("%s leads to it", p)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	var rules strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rules, "r%d:\n  endpoints: [{ host: h%d.example.com, port: 443 }]\n  binaries: [{ path: /usr/bin/curl }]\n", i, i)
	}
	data := []byte("version: 1\nnetwork_policies:\n" + indent(rules.String()))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
