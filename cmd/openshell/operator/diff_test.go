// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
)

func TestPolicyDiff(t *testing.T) {
	n := newNode(t)
	a, same, b, bad := n.policyFile("a"), n.policyFile("same"), n.policyFile("b"), n.policyFile("bad")
	n.write(a, evalPolicy)
	n.write(same, "# a comment\n"+strings.Replace(evalPolicy, "port: 443", "ports: [443, 443]", 1))
	n.write(b, strings.Replace(evalPolicy, "{method: GET, path: /repos/**}", "{method: POST, path: /repos/*}", 1)+
		"  dns:\n    endpoints: [{host: dns.example.com, port: 53, protocol: udp}]\n    binaries: [{path: /usr/bin/dig}]\n")
	n.write(bad, "version: 1\nnonsense: 1\n")

	if out := n.run("policy", "diff", a, same); out != "" {
		t.Errorf("equal: %q", out)
	}
	if out := n.run("policy", "diff", "a", "same", "--json"); out != "[]\n" {
		t.Errorf("equal: %q", out)
	}
	stdout, stderr, code := n.runWith("", "policy", "diff", "a", b)
	if code != 1 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	const want = `network_policies.dns: added
  + /usr/bin/dig dns.example.com:53 (udp)
      ...
    + network_policies:
    +   dns:
    +     endpoints:
    +     - host: dns.example.com
    +       port: 53
    +       protocol: udp
    +     binaries:
    +     - path: /usr/bin/dig

network_policies.github: changed
  - /usr/bin/curl GET https://api.github.com:443/repos/**
  + /usr/bin/curl POST https://api.github.com:443/repos/*
      ...
            enforcement: enforce
            rules:
            - allow:
    -           method: GET
    -           path: /repos/**
    +           method: POST
    +           path: /repos/*
          binaries:
          - path: /usr/bin/curl

`
	if stdout != want {
		t.Errorf("got\n%s\nwant\n%s", stdout, want)
	}
	stdout, _, code = n.runWith(evalPolicy, "policy", "diff", "--json", b, "-")
	var changes []policy.Change
	if err := json.Unmarshal([]byte(stdout), &changes); code != 1 || err != nil || len(changes) != 2 || changes[0].Kind != "removed" || len(changes[1].Added) != 1 {
		t.Errorf("exit %d, %v, %s", code, err, stdout)
	}
	for _, args := range [][]string{{a, bad}, {bad, a}, {"nothing", a}, {a, "/nonexistent"}, {a, "/nonexistent.yaml"}} {
		stdout, stderr, code := n.runWith("", append([]string{"policy", "diff"}, args...)...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
	wantContains(t, n.fails("policy", "diff", a), "policy diff A B")
}
