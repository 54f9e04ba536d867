// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	base, learned := load(t, "policies/agent.yaml"), load(t, "learned.yaml")
	before := base.Digest()
	merged := Merge(base, learned)

	if merged.Network["pypi"].Learned || !merged.Network["pypi_learned"].Learned || !merged.Network["api_github_com_443_curl_3f9a"].Learned {
		t.Error("learned rules are not marked, or the base's are")
	}
	if got, want := len(merged.Network), len(base.Network)+2; got != want {
		t.Errorf("%d rules, want %d", got, want)
	}
	wantRead := []string{"/etc", "/home/agent/.config/git", "/lib", "/srv/models", "/usr"}
	if !slices.Equal(merged.Filesystem.ReadOnly, wantRead) || !merged.Filesystem.IncludeWorkdir {
		t.Errorf("filesystem %+v", merged.Filesystem)
	}
	if merged.Landlock.Compatibility != CompatibilityHardRequirement {
		t.Error("the base's landlock section is lost")
	}

	// Nothing is shared with what was merged.
	merged.Network["pypi"].Binaries[0].Path = "/changed"
	merged.Network["github_clone"].Endpoints[0].Rules[0].Allow.Query["service"].Any[0] = "changed"
	merged.Filesystem.ReadOnly[0] = "/changed"
	merged.Network["pypi_learned"].Endpoints[0].Ports[0] = 1
	if base.Digest() != before || learned.Digest() != load(t, "learned.yaml").Digest() {
		t.Error("merging shares memory with its arguments")
	}
}

func TestMergeKeysDoNotClash(t *testing.T) {
	rule := func(host string) *Rule {
		return &Rule{Endpoints: []Endpoint{{Host: host, Port: 1}}, Binaries: []Binary{{"/b"}}}
	}
	base := &Policy{Version: 1, Network: map[string]*Rule{"a": rule("base.example")}}
	learned := &Policy{Version: 1, Network: map[string]*Rule{"a": rule("l1.example"), "a_learned": rule("l2.example"), "b": nil}}
	got := map[string]string{}
	for key, r := range Merge(base, learned).Network {
		got[key] = r.Endpoints[0].Host
	}
	want := map[string]string{"a": "base.example", "a_learned": "l2.example", "a_learned_learned": "l1.example"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A policy that was exported and made the base has the learned rules already.
func TestMergeDoesNotRepeat(t *testing.T) {
	base, learned := load(t, "policies/agent.yaml"), load(t, "learned.yaml")
	exported := Merge(base, learned)
	if got, want := text(t, Merge(exported, learned)), text(t, exported); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// A rule that has grown since is another one.
	for _, r := range learned.Network {
		r.Endpoints[0].Host = "other.example.com"
	}
	if got, want := len(Merge(exported, learned).Network), len(exported.Network)+len(learned.Network); got != want {
		t.Errorf("%d rules, want %d", got, want)
	}
}

func TestMergeNil(t *testing.T) {
	learned := load(t, "learned.yaml")
	if p := Merge(nil, learned); len(p.Network) != 2 || p.Version != 1 {
		t.Errorf("nil base: %+v", p)
	}
	if p := Merge(Default(), nil); !reflect.DeepEqual(p, Default()) {
		t.Errorf("nil learned: %+v", p)
	}
	// An absent section means the working directory; a learned list keeps it.
	if p := Merge(&Policy{Version: 1}, learned); !p.Filesystem.IncludeWorkdir {
		t.Error("the working directory is lost")
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	for _, name := range []string{"policies/agent.yaml", "policies/build.yaml", "policies/observe.yaml", "policies/locked.yaml", "learned.yaml"} {
		p := load(t, name)
		checkRoundTrip(t, p)
		if p.Digest() != Merge(p, nil).Digest() {
			t.Errorf("%s: a copy has another digest", name)
		}
	}
	checkRoundTrip(t, Merge(load(t, "policies/agent.yaml"), load(t, "learned.yaml")))
	checkRoundTrip(t, Default())
}

func checkRoundTrip(t *testing.T, p *Policy) {
	t.Helper()
	data, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Parse(data)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	if !reflect.DeepEqual(p, again) {
		t.Errorf("got  %+v\nwant %+v\nfrom\n%s", again, p, data)
	}
	second, err := Marshal(again)
	if err != nil || !bytes.Equal(data, second) {
		t.Errorf("not stable (%v):\n%s\n%s", err, data, second)
	}
	if p.Digest() != again.Digest() {
		t.Error("the digest changed")
	}
}

// Strings that YAML would read as something else.
func TestMarshalAwkwardStrings(t *testing.T) {
	p := &Policy{Version: 1, Filesystem: &Filesystem{}, Network: map[string]*Rule{}}
	for _, s := range []string{
		"~", "null", "yes", "0x1F", "1e3", "1_000", "012", "2024-01-01", "<<", "=", "a: b", "a #b", "# openshell.ai/learned",
		" lead", "trail ", "'", "\"", "-", "- a", "?", "!tag", "&a", "*a", "{a", "[a", "%a", "@a", "`a", "|", ">", ":", ",",
		"é", "\u2028", "\U0001f600", "---", "...", strings.Repeat("long ", 50),
	} {
		p.Network[s] = &Rule{Name: s, Binaries: []Binary{{"/" + s}}, Learned: len(s)%2 == 0, Endpoints: []Endpoint{{
			Host: "h.example", Port: 443, Protocol: "rest", Enforcement: "enforce",
			Rules: []L7Allow{{L7Match{Method: "GET", Path: "/x", Query: map[string]Matcher{s: {[]string{validGlob(s), "x"}}}}}},
		}}}
		p.Filesystem.ReadOnly = append(p.Filesystem.ReadOnly, "/"+s)
	}
	checkRoundTrip(t, p)
}

// validGlob drops what is not a valid glob from an awkward string.
func validGlob(s string) string { return strings.NewReplacer("{", "", "[", "").Replace(s) }

func TestMarshalForm(t *testing.T) {
	p := &Policy{Version: 1, Network: map[string]*Rule{
		"b": {Endpoints: []Endpoint{{Host: "*.example.com", Ports: []uint16{80, 443}}}, Binaries: []Binary{{"/b"}}, Learned: true},
		"a": {Name: "yes", Endpoints: []Endpoint{{
			Host: "h.example", Port: 443, Protocol: "rest", Enforcement: "enforce",
			Rules: []L7Allow{{L7Match{Method: "GET", Path: "/x", Query: map[string]Matcher{"n": {[]string{"1"}}, "m": {[]string{"a", "b"}}}}}},
		}}},
	}}
	const want = `version: 1
network_policies:
  a:
    name: "yes"
    endpoints:
    - host: h.example
      port: 443
      protocol: rest
      enforcement: enforce
      rules:
      - allow:
          method: GET
          path: /x
          query:
            m:
              any: [a, b]
            "n": "1"
  # openshell.ai/learned
  b:
    endpoints:
    - host: '*.example.com'
      ports: [80, 443]
    binaries:
    - path: /b
`
	got, err := Marshal(p)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

func TestMarshalRefusesInvalid(t *testing.T) {
	for _, p := range []*Policy{
		{},
		{Version: 1, Network: map[string]*Rule{"r": nil}},
		{Version: 1, Network: map[string]*Rule{"r": {Binaries: []Binary{}}}},
		{Version: 1, Network: map[string]*Rule{"r": {Learned: true, Endpoints: []Endpoint{{Host: "h.example", Port: 1}}}}},
		{Version: 1, Network: map[string]*Rule{"r\n": {Binaries: []Binary{{"/b"}}}}},
	} {
		if data, err := Marshal(p); err == nil {
			t.Errorf("wrote\n%s", data)
		}
	}
}

func TestRuleDigest(t *testing.T) {
	p := load(t, "policies/agent.yaml")
	r := p.Network["github_api"]
	digest := RuleDigest(r)
	if !strings.HasPrefix(digest, "sha256:") || len(digest) != 71 {
		t.Fatalf("digest %q", digest)
	}
	changed := r.Clone()
	changed.Learned = true // where it came from is not its contents
	if RuleDigest(changed) != digest {
		t.Error("the digest depends on provenance")
	}
	changed.Endpoints[0].DenyRules = changed.Endpoints[0].DenyRules[:1]
	if RuleDigest(changed) == digest {
		t.Error("the digest does not depend on the contents")
	}
	if p.Digest() == Default().Digest() {
		t.Error("different policies have one digest")
	}

	// A proposal holds its rule as JSON.
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Rule
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if RuleDigest(&again) != digest || !reflect.DeepEqual(r, &again) {
		t.Errorf("JSON changed the rule: %s", data)
	}
}

// An empty list of binaries must not come back as an absent one, which would
// mean any binary.
func TestRuleJSONKeepsEmptyLists(t *testing.T) {
	data, err := json.Marshal(&Rule{Binaries: []Binary{}})
	if err != nil {
		t.Fatal(err)
	}
	var again Rule
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if err := again.Validate("r"); err == nil || !strings.Contains(err.Error(), "is an empty list") {
		t.Errorf("%s: %v", data, err)
	}
}

func TestMatcherJSON(t *testing.T) {
	tests := map[string][]string{`"a*"`: {"a*"}, `{"any":["a","b"]}`: {"a", "b"}, `{"glob":"x"}`: {"x"}}
	for text, want := range tests {
		var m Matcher
		if err := json.Unmarshal([]byte(text), &m); err != nil || !slices.Equal(m.Any, want) {
			t.Errorf("%s: %v, %v", text, m.Any, err)
		}
	}
	for _, text := range []string{`{}`, `1`, `{"any":[]}`, `{"any":["a"],"glob":"b"}`} {
		if err := json.Unmarshal([]byte(text), new(Matcher)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

func TestDiff(t *testing.T) {
	base, learned := load(t, "policies/agent.yaml"), load(t, "learned.yaml")
	merged := Merge(base, learned)
	want := []string{
		"+ /usr/bin/curl GET https://api.github.com:443/repos/*/*/issues",
		"+ /usr/bin/curl POST https://api.github.com:443/repos/o/r/issues",
		"+ /usr/bin/pip3 mirror.corp.example:443 (tcp)",
		"+ read-only /srv/models",
	}
	if got := Diff(base, merged); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	for i := range want {
		want[i] = "-" + want[i][1:]
	}
	if got := Diff(merged, base); !slices.Equal(got, want) {
		t.Errorf("backwards\n%s", strings.Join(got, "\n"))
	}
	if got := Diff(base, base.Clone()); got != nil {
		t.Errorf("no difference: %q", got)
	}
	renamed := base.Clone()
	renamed.Network["other"] = renamed.Network["pypi"]
	delete(renamed.Network, "pypi")
	if got := Diff(base, renamed); got != nil {
		t.Errorf("a renamed rule: %q", got)
	}
}

func TestDiffLines(t *testing.T) {
	after := network(t, `
r:
  endpoints:
    - { host: h.example, port: 80, protocol: rest, path: /v1/**, rules: [{ allow: { method: GET, path: "**", query: { a: x, b: { any: [y, z] } } } }], deny_rules: [{ method: "*", path: /no }] }
    - { host: "2001:db8::1", port: 8443, protocol: rest, enforcement: enforce, access: full, allow_encoded_slash: true }
    - { port: 53, protocol: udp, allowed_ips: [10.0.0.53] }
    - { host: t.example, port: 1, tls: skip }
`)
	want := []string{
		"+ any program * [2001:db8::1]:8443/** (encoded slashes)",
		"+ any program GET http://h.example:80/**?a=x&b=y|z (under /v1/**) (audit: the rest is only logged)",
		"+ any program any host:53 (udp) (addresses 10.0.0.53)",
		"+ any program never * http://h.example:80/no (under /v1/**) (audit: the rest is only logged)",
		"+ any program t.example:1 (tcp, tls: skip)",
		"+ read-write the working directory",
	}
	if got := Diff(nil, after); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// FuzzParse checks that whatever is accepted is written so that
// it is read back as the same policy.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"policies/agent.yaml", "policies/build.yaml", "learned.yaml", "policies/locked.yaml"} {
		data, err := Marshal(load(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("version: 1\nnetwork_policies: {\"a b\": {name: \"0x1: #\", endpoints: [{host: h.example, port: 1, allowed_ips: [10.0.0.1]}]}}"))
	f.Add([]byte("version: 1\nfilesystem_policy: {read_only: ['/a: b', \"/\\u2028\", '/~', '/ ']}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, _, err := Parse(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
			return
		}
		checkRoundTrip(t, p)
		Diff(nil, p)
	})
}
