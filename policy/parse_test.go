package policy

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
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
			p, warnings, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("an example should not warn: %s", w)
			}
			if _, err := Compile(p, Options{}); err != nil {
				t.Fatal(err)
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
		{endpointYAML("host: h.example, port: 1, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a//b}}]"), "never matches: paths are compared in canonical form, write /a/b"},
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
