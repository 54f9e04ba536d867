// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestCompareIgnoresHowItIsWritten(t *testing.T) {
	a := mustParse(t, `version: 1
filesystem_policy: {include_workdir: true, read_only: [/usr/, /lib], read_write: [/tmp]}
landlock: {compatibility: best_effort}
network_policies:
  r:
    name: a name
    endpoints:
      - {host: A.example.com., port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: b.example.com, ports: [80, 443], protocol: tcp, access: ''}
      - {host: c.example.com, port: 1, allowed_ips: [10.0.0.1, 192.168.0.0/16]}
    binaries: [{path: /b}, {path: /a}]
`)
	b := mustParse(t, `version: 1
filesystem_policy: {include_workdir: true, read_only: [/lib, /usr, /lib], read_write: [/tmp]}
network_policies:
  # a comment
  r:
    endpoints:
      - {host: c.example.com, ports: [1], allowed_ips: [192.168.1.1/16, 10.0.0.1/32]}
      - {host: b.example.com, ports: [443, 80, 80]}
    binaries: [{path: /a}, {path: /b}, {path: /a}]
  other:
    endpoints:
      - host: a.example.com
        port: 443
        path: /**
        protocol: rest
        enforcement: enforce
        rules:
          - allow: {method: options, path: /**}
          - allow: {method: get, path: '**'}
    binaries: [{path: /b}, {path: /a}]
  nothing: {}
`)
	if changes := Compare(a, b); changes != nil {
		t.Errorf("%+v", changes)
	}
	if changes := Compare(b, a); changes != nil {
		t.Errorf("%+v", changes)
	}
	if changes := Compare(&Policy{Version: 1}, Default()); changes != nil {
		t.Errorf("an absent section is not the working directory: %+v", changes)
	}
	if changes := Compare(&Policy{Version: 1, Filesystem: &Filesystem{}}, Default()); len(changes) != 1 || changes[0].Section != "filesystem_policy" {
		t.Errorf("an empty section is the working directory: %+v", changes)
	}
}

func TestCompare(t *testing.T) {
	base := "r:\n  endpoints: [{host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a}}]}]\n  binaries: [{path: /bin/a}]\n"
	for _, tt := range []struct {
		name, old, now string // parts of the base's text
		removed, added string
	}{
		{"method", "GET", "POST", "GET https://a.example.com:443/a", "POST https://a.example.com:443/a"},
		{"enforcement", "enforcement: enforce, ", "", "/a", "audit: the rest is only logged"},
		{"binary", "binaries: [{path: /bin/a}]", "binaries: [{path: /bin/a}, {path: /bin/b}]", "", "/bin/b GET"},
		{"any binary", "  binaries: [{path: /bin/a}]\n", "", "/bin/a GET", "any program GET"},
		{"deny rule", "}}]}]", "}}], deny_rules: [{method: GET, path: /a/b}]}]", "", "never GET"},
		{"query", "path: /a}", "path: /a, query: {q: '1'}}", "/a", "/a?q=1"},
		{"encoded slash", "port: 443,", "port: 443, allow_encoded_slash: true,", "/a", "encoded slashes"},
		{"addresses", "port: 443,", "port: 443, allowed_ips: [10.0.0.0/8],", "/a", "addresses 10.0.0.0/8"},
		{"learned", "r:\n", "# openshell.ai/learned\n  r:\n", "", "public addresses only"},
		{"protocol", "protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a}}]", "protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [a]}}]", "GET", "query {a}"},
		{"options", "protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /a}}]", "protocol: mcp, enforcement: enforce, mcp: {max_body_bytes: 9}, rules: [{allow: {method: tools/call, tool: x}}]", "GET", `options {"mcp":{"max_body_bytes":9}}`},
		{"another rule", "r:\n", "s:\n  endpoints: [{host: b.example.com, port: 1}]\n  binaries: [{path: /b}]\nr:\n", "", "/b b.example.com:1 (tcp)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(base, tt.old, strings.ReplaceAll(tt.now, "\n  r:", "\nr:"), 1)
			if changed == base {
				t.Fatal("nothing was changed")
			}
			a, b := network(t, base), network(t, changed)
			changes := Compare(a, b)
			if len(changes) != 1 {
				t.Fatalf("%+v", changes)
			}
			c := changes[0]
			if !strings.Contains(strings.Join(c.Removed, "\n"), tt.removed) || (len(c.Removed) > 0) != (tt.removed != "") {
				t.Errorf("removed %q, want %q", c.Removed, tt.removed)
			}
			if !strings.Contains(strings.Join(c.Added, "\n"), tt.added) || (len(c.Added) > 0) != (tt.added != "") {
				t.Errorf("added %q, want %q", c.Added, tt.added)
			}
			kind := "changed"
			if c.Section == "network_policies.s" {
				kind = "added"
			}
			if c.Kind != kind || (c.Before == "") != (kind == "added") || c.After == "" {
				t.Errorf("%+v", c)
			}
			back := Compare(b, a)
			if len(back) != 1 || !slices.Equal(back[0].Added, c.Removed) || !slices.Equal(back[0].Removed, c.Added) {
				t.Errorf("the other way round: %+v", back)
			}
		})
	}
}

// Another rule's host of the same name hides no change of what is trusted.
func TestCompareTrust(t *testing.T) {
	rule := func(learned, key, binary string) string {
		return learned + key + ":\n  endpoints: [{host: 10.0.0.1, port: 443}]\n  binaries: [{path: " + binary + "}]\n"
	}
	const mark = "# openshell.ai/learned\n"
	for _, tt := range []struct {
		before, after string
		changed       bool
	}{
		{rule(mark, "a", "/a") + rule(mark, "b", "/b"), rule("", "a", "/a") + rule(mark, "b", "/b"), true},
		{rule(mark, "a", "/a") + rule(mark, "b", "/a"), rule("", "a", "/a") + rule(mark, "b", "/a"), true},
		{rule("", "a", "/a") + rule("", "b", "/a"), rule("", "a", "/a") + rule(mark, "b", "/a"), false},
	} {
		before, after := network(t, tt.before), network(t, tt.after)
		if changes := Compare(before, after); (len(changes) > 0) != tt.changed {
			t.Errorf("%s%s%+v", tt.before, tt.after, changes)
		}
	}
}
