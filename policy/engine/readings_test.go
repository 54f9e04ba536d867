// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"testing"
)

func ruleYAML(endpoint string) string {
	return "r:\n  binaries: [{path: /b}]\n  endpoints:\n    - {" + endpoint + "}\n"
}

// A request is allowed only if it is however its target is read.
func TestEveryReadingDecides(t *testing.T) {
	const head = `host: h.example, port: 443, protocol: rest, enforcement: enforce, `
	get := func(paths ...string) string {
		rules := ""
		for _, path := range paths {
			rules += "{allow: {method: GET, path: '" + path + "'}}, "
		}
		return "rules: [" + rules + "]"
	}
	for _, tt := range []struct {
		endpoint, target string
		want             Decision
		missing          []string
	}{
		{get("/bucket/a//b", "/bucket/a/b"), "/bucket/a//b", Allow, nil},
		{get("/bucket/a//b"), "/bucket/a//b", Deny, []string{"/bucket/a/b"}},
		{get("/bucket/a/b"), "/bucket/a//b", Deny, []string{"/bucket/a//b"}},
		{get("/bucket/**"), "/bucket/a//b", Allow, nil},
		{get("/x/y"), "/x;v=1/y;jsessionid=AB", Deny, []string{"/x;v=1/y;jsessionid=AB"}},
		{get("/x*/y*"), "/x;v=1/y;jsessionid=AB", Allow, nil},
		{get("/public/**"), "/public/../secret", Deny, []string{"/secret"}},
		{get("/public/**"), "/public/..;/secret", Deny, []string{"/secret"}},
		{get("/public/**"), "/public/%252e%252e/secret", Deny, []string{"/secret"}},
		{get("/public/**"), "/public/%ef%bc%8e%ef%bc%8e/secret", Deny, []string{"/secret"}},
		{get("/public/**"), "/public/a/../b", Allow, nil},
		{get("/public/*"), "/public/a%2Fb", Deny, []string{"/public/a/b"}},
		{get("/public/*") + ", allow_encoded_slash: true", "/public/a%2Fb", Allow, nil},
		{get("/public/*") + ", allow_encoded_slash: true", "/public/a%252Fb", Allow, nil},
		{get("/public/*") + ", allow_encoded_slash: true", "/public/a%2Fb//c", Deny, []string{"/public/a%2Fb/c", "/public/a%2Fb//c"}},
		{get("/**") + ", allow_encoded_slash: true, deny_rules: [{method: GET, path: '/admin/**'}]", "/admin%2Fx", Deny, nil},
		{"access: read-only, deny_rules: [{method: GET, path: /user/keys}]", "/user//keys", Deny, nil},
		{"access: read-only, deny_rules: [{method: GET, path: /user/keys}]", "/user/%256beys", Deny, nil},
		{"access: read-only, deny_rules: [{method: GET, path: /user/keys}]", "/user/other;keys", Allow, nil},
		{`access: full`, "*", Deny, nil}, // for GET it is no target
	} {
		m := connect(t, engine(t, ruleYAML(head+tt.endpoint)))
		r, v, err := m.Target("GET", tt.target)
		if err != nil {
			if tt.target != "*" {
				t.Errorf("%s: %v", tt.target, err)
			}
			continue
		}
		var missing []string
		for _, match := range v.Missing {
			missing = append(missing, match.Path)
		}
		if v.Decision != tt.want || !slices.Equal(slices.Sorted(slices.Values(missing)), slices.Sorted(slices.Values(tt.missing))) {
			t.Errorf("%s with %s: %v (%s), missing %q", tt.target, tt.endpoint, v.Decision, v.Reason, missing)
		}
		if again := m.Request(r); again.Decision != v.Decision {
			t.Errorf("%s: decided again %v", tt.target, again.Decision)
		}
	}
}

// Messages are decided on every reading too, and a method of their name makes no
// message of a request.
func TestMessagesOfEveryReading(t *testing.T) {
	m := connect(t, engine(t, ruleYAML(`host: h.example, port: 443, protocol: websocket, enforcement: enforce, rules: [`+
		`{allow: {method: GET, path: /**}}, {allow: {method: WEBSOCKET_TEXT, path: /a/**}}]`)))
	for target, want := range map[string]Decision{"/a/b//c": Allow, "/a/../b": Deny, "/a/b": Allow} {
		r, v, err := m.Target("GET", target)
		if err != nil || v.Decision != Allow {
			t.Fatalf("%s: %+v, %v", target, v, err)
		}
		if v := m.Text(r, nil); v.Decision != want {
			t.Errorf("a message on %s: %+v", target, v)
		}
	}
	m = connect(t, engine(t, ruleYAML(`host: h.example, port: 443, protocol: rest, enforcement: enforce, access: read-only`)))
	if _, v, err := m.Target("WEBSOCKET_TEXT", "/a//b"); err != nil || v.Decision != Deny {
		t.Errorf("an HTTP request: %+v, %v", v, err)
	}
}

func TestAsteriskIsARequestLikeAnyOther(t *testing.T) {
	for rules, want := range map[string]Decision{
		`access: full`: Allow,
		`rules: [{allow: {method: OPTIONS, path: '\*'}}]`:  Allow,
		`rules: [{allow: {method: OPTIONS, path: '/**'}}]`: Deny,
	} {
		m := connect(t, engine(t, ruleYAML(`host: h.example, port: 443, protocol: rest, enforcement: enforce, `+rules)))
		if _, v, err := m.Target("OPTIONS", "*"); err != nil || v.Decision != want || want == Deny && (len(v.Missing) != 1 || v.Missing[0].Path != `\*`) {
			t.Errorf("%s: %+v, %v", rules, v, err)
		}
	}
}

// What any reading needs to be decided by is asked for.
func TestInspectionOfEveryReading(t *testing.T) {
	m := connect(t, engine(t, ruleYAML(`host: h.example, port: 443, protocol: graphql, path: /graphql, enforcement: enforce, access: full}
    - {host: h.example, port: 443, protocol: rest, path: /x/**, enforcement: enforce, access: full`)))
	r, _, err := m.Target("POST", "/x/../graphql")
	if err != nil || m.Inspection(r).MaxBody == 0 {
		t.Errorf("%+v, %v", m.Inspection(r), err)
	}
	if v := m.Request(r); v.Decision != Deny {
		t.Errorf("without its body: %+v", v)
	}
}
