// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

func TestPropose(t *testing.T) {
	n := newNode(t)
	base := filepath.Join(t.TempDir(), "base.yaml")
	n.write(base, `version: 1
network_policies:
  api:
    binaries: [{path: /usr/bin/curl}]
    endpoints:
      - {host: api.example.com, port: 443, path: /graphql, protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [viewer]}}]}
`)
	log := `{"binary":"/usr/bin/curl","host":"api.example.com","port":443,"http":{"method":"POST","target":"/graphql"},"graphql":{"query":"{viewer{login}}"}}
{"binary":"/usr/bin/curl","host":"api.example.com","port":443,"http":{"method":"POST","target":"/graphql"},"graphql":{"query":"mutation{star}"},"run":"a"}
{"binary":"/usr/bin/git","ancestors":["/bin/sh"],"host":"git.example.com","port":443,"http":{"method":"GET","target":"/o/r/info/refs?service=x"},"run":"a","time":"2026-01-02T03:04:05Z"}
{"binary":"/usr/bin/git","host":"git.example.com","port":443,"http":{"method":"POST","target":"/o/r/git-upload-pack"},"run":"b","resolved_ips":["45.64.45.9"]}

{"binary":"/usr/bin/dig","host":"45.64.45.1","port":5353,"protocol":"udp"}
{"binary":"/usr/bin/evil","host":"metadata.example.com","port":80,"resolved_ips":["169.254.169.254"]}
{"binary":"/usr/bin/make","file":{"path":"/data/out/","access":"write"}}
{"binary":"/usr/bin/make","file":{"path":"/usr/include/stdio.h","access":"read"}}
{"class_uid":4002,"time":1767322000000,"actor":{"process":{"path":"/usr/bin/node","ancestry":[{"path":"/bin/sh"}]}},"dst_endpoint":{"domain":"npm.example.com","ip":"45.64.45.2","port":443},"connection_info":{"protocol_name":"tcp"},"http_request":{"http_method":"GET","url":{"path":"/left-pad/*"}},"disposition":"Logged"}
{"class_uid":6002,"time":1767322000000,"message":"sandbox started"}
`
	stdout, stderr, code := n.runWith(log, "policy", "propose", "--base", base, "--name", "agent")
	if code != 0 {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	p, _, err := policy.Parse([]byte(stdout))
	if err != nil {
		t.Fatalf("%v in\n%s", err, stdout)
	}
	approved := enforcing(t, p)
	for line, want := range map[string]string{
		`{"binary":"/usr/bin/curl","host":"api.example.com","port":443,"http":{"method":"POST","target":"/graphql"},"graphql":{"query":"mutation{star}"}}`:         "allow",
		`{"binary":"/usr/bin/curl","host":"api.example.com","port":443,"http":{"method":"POST","target":"/graphql"},"graphql":{"query":"mutation{unstar}"}}`:       "deny",
		`{"binary":"/usr/bin/git","host":"git.example.com","port":443,"http":{"method":"POST","target":"/o/r/git-upload-pack"}}`:                                   "allow",
		`{"binary":"/usr/bin/git","host":"git.example.com","port":443,"http":{"method":"DELETE","target":"/o/r/git-upload-pack"}}`:                                 "deny",
		`{"binary":"/usr/bin/node","host":"npm.example.com","port":443,"http":{"method":"GET","target":"/left-pad/bb5929a15ab5cb2a1bd4f6e4a3bd1e3d5c0f4a4bfc6c"}}`: "allow",
		`{"binary":"/usr/bin/evil","host":"metadata.example.com","port":80}`:                                                                                       "deny",
	} {
		a, err := parseAction([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := approved.Evaluate(a); err != nil || v.Decision != want {
			t.Errorf("%s: %+v, %v, want %s", line, v.Answer, err, want)
		}
	}
	if f := p.FilesystemRules(); strings.Join(f.ReadWrite, " ") != "/data" && strings.Join(f.ReadWrite, " ") != "/data/out" {
		t.Errorf("filesystem: %+v", f)
	}

	if !strings.Contains(stderr, "1 line: to addresses that are never reachable") || !strings.Contains(stderr, "/usr/bin/evil to metadata.example.com:80: ") {
		t.Errorf("what is not proposed is not told: %s", stderr)
	}

	stdout, _, _ = n.runWith(log, "policy", "propose", "--base", base, "--name", "agent", "--json")
	seen := map[string]string{}
	for line := range strings.Lines(stdout) {
		var p learn.Proposal
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		seen[p.Binary] = p.Kind
		if p.Binary == "/usr/bin/git" && len(p.Provenance.Runs) != 2 {
			t.Errorf("runs: %+v", p.Provenance.Runs)
		}
		if ips := p.Evidence.ResolvedIPs; p.Binary == "/usr/bin/git" && (len(ips) != 1 || ips[0] != "45.64.45.9") {
			t.Errorf("resolved addresses: %v", ips)
		}
		if !strings.HasPrefix(p.Provenance.BasePolicySHA256, "sha256:") {
			t.Errorf("%s: base policy %q", p.ID, p.Provenance.BasePolicySHA256)
		}
	}
	for _, binary := range []string{"/usr/bin/curl", "/usr/bin/git", "/usr/bin/dig", "/usr/bin/node"} {
		if seen[binary] != learn.KindNetwork {
			t.Errorf("no proposal for %s: %v", binary, seen)
		}
	}
	if seen["/usr/bin/evil"] != "" {
		t.Error("what the address guard refuses is proposed")
	}
}

// Whatever is not proposed is told, with the reason.
func TestProposeTellsWhatItLeavesOut(t *testing.T) {
	n := newNode(t)
	const prefix = `{"binary":"/usr/bin/curl","host":"api.example.com","port":443,"http":`
	_, stderr, code := n.runWith(prefix+`{"method":"GET","target":"/a/../../b"}}
`+prefix+`{"method":"GET 1","target":"/"}}
`+prefix+`{"method":"X1","target":"/"}}
`+prefix+`{"method":"X1","target":"/b"}}
{"binary":"/usr/bin/curl","host":"10.0.0.1","port":443}
{"binary":"/usr/bin/curl","host":"*.example.com","port":443}
`, "policy", "propose")
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"2 lines: malformed requests", "3 lines: that no rule can name", "1 line: to addresses"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%s is missing in\n%s", want, stderr)
		}
	}
}

func TestProposeRefuses(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct{ line, problem string }{
		{`{"binary":"/b","hots":"x"}`, `unknown field "hots"`},
		{`{"binary":"/b","host":"x"}`, "port is required"},
		{`{"binary":"/b","file":{"path":"data","access":"read"}}`, "file.path must be absolute"},
		{`{"binary":"/b","file":{"path":"/data","access":"own"}}`, "file.access must be read, write or execute"},
		{`{"binary":"/b","host":"x","port":1,"file":{"path":"/data","access":"read"}}`, "exclude each other"},
		{`[`, "not a whole JSON object"},
	} {
		good := `{"binary":"/usr/bin/git","host":"git.example.com","port":443}` + "\n"
		stdout, stderr, code := n.runWith(good+tt.line+"\n", "policy", "propose")
		if code != 1 || !strings.Contains(stderr, "line 2: ") || !strings.Contains(stderr, tt.problem) || !strings.Contains(stdout, "git.example.com") {
			t.Errorf("%s: exit %d, %s%s", tt.line, code, stderr, stdout)
		}
	}
	invalid := filepath.Join(t.TempDir(), "invalid.yaml")
	n.write(invalid, "version: 2\n")
	if _, stderr, code := n.runWith("", "policy", "propose", "--base", invalid); code != 2 || !strings.Contains(stderr, "version") {
		t.Errorf("an invalid base: exit %d, %s", code, stderr)
	}
	if stdout := n.run("policy", "propose"); !strings.Contains(stdout, "version: 1") {
		t.Errorf("an empty log: %s", stdout)
	}
}

// What too much was seen of is left out, as approve --all leaves it out, and what there is no room for is told.
func TestProposeLeavesOutWhatIsCutShort(t *testing.T) {
	n := newNode(t)
	var log strings.Builder
	log.WriteString(`{"binary":"/usr/bin/git","host":"git.example.com","port":443}` + "\n")
	for i := range 300 {
		fmt.Fprintf(&log, `{"binary":"/usr/bin/make","file":{"path":"/data/d%[1]dx/%[1]d.c","access":"read"}}`+"\n", i)
	}
	stdout, stderr, code := n.runWith(log.String(), "policy", "propose")
	if code != 1 || !strings.Contains(stdout, "git.example.com") || strings.Contains(stdout, "/data") ||
		!strings.Contains(stderr, "left out") || !strings.Contains(stderr, "--include-truncated") {
		t.Errorf("exit %d, %s\n%s", code, stderr, stdout)
	}
	if stdout, stderr, code = n.runWith(log.String(), "policy", "propose", "--include-truncated"); code != 0 || !strings.Contains(stdout, "/data") {
		t.Errorf("exit %d, %s\n%s", code, stderr, stdout)
	}
	log.Reset()
	for i := range 4100 {
		fmt.Fprintf(&log, `{"binary":"/usr/bin/git","host":"h%d.example.com","port":443}`+"\n", i)
	}
	if _, stderr, code = n.runWith(log.String(), "policy", "propose", "--json"); code != 1 || !strings.Contains(stderr, "not proposed: 4 lines") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// enforcing is what decides by a policy where the node adds nothing.
func enforcing(t *testing.T, p *policy.Policy) decision.Snapshot {
	t.Helper()
	engine, err := engine.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return decision.Snapshot{Effective: engine}
}
