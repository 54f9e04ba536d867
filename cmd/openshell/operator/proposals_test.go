// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

func proposal(id, status, binary string, e policy.Endpoint) learn.Proposal {
	return learn.Proposal{ID: id, Policy: "agent", Kind: learn.KindNetwork, Status: status, Binary: binary, Confidence: 0.65,
		Edit:       learn.Edit{Rule: &policy.Rule{Endpoints: []policy.Endpoint{e}, Binaries: []policy.Binary{{Path: binary}}}},
		Evidence:   learn.ProposalEvidence{Hits: 12},
		Provenance: learn.Provenance{Mode: learn.ModePermissive, Runs: []learn.RunEvidence{{Run: "r1"}, {Run: "r2"}}}}
}

func TestProposalTable(t *testing.T) {
	get := policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: "/repos/*"}}
	long := policy.L7Allow{Allow: policy.L7Match{Method: "GET", Path: "/a/path/that/is/too/long/for/a/column"}}
	list := []learn.Proposal{
		proposal("p-00000001", learn.StatusPending, "/usr/bin/curl", policy.Endpoint{Host: "api.github.com", Port: 443, Protocol: "rest", Rules: []policy.L7Allow{get, get, get}}),
		proposal("p-00000002", learn.StatusApproved, "/opt/agent/node_modules/.bin/claude-code", policy.Endpoint{Host: strings.Repeat("x", 40) + ".example.com", Port: 443, Protocol: "rest", Rules: []policy.L7Allow{long, get}}),
		proposal("p-00000003", learn.StatusRejected, "/bin/a\n\x1b[2Jb", policy.Endpoint{Host: "2001:db8::1", Ports: []uint16{53}, Protocol: "udp"}),
		proposal("p-00000004", learn.StatusSuperseded, "/bin/\u202ec", policy.Endpoint{Host: "a.b", Ports: []uint16{22}, TLS: "skip"}),
	}
	var out bytes.Buffer
	if err := writeTable(&out, proposalRows(list, map[string][]learn.RunRecord{"agent": {{Run: "r2"}, {Run: "r3"}}}, false)); err != nil {
		t.Fatal(err)
	}
	const want = `ID          STATUS      BINARY                TARGET                        WHAT                  HITS  CONFIDENCE  MODE        RUNS
p-00000001  pending     /usr/bin/curl         api.github.com:443            GET /repos/* +2       12    0.65        permissive  2 of 3
p-00000002  approved    …es/.bin/claude-code  …xxxxxxxxxxx.example.com:443  GET /a/path/that… +1  12    0.65        permissive  2 of 3
p-00000003  rejected    /bin/a\x0a\x1b[2Jb    [2001:db8::1]:53              any (UDP)             12    0.65        permissive  2 of 3
p-00000004  superseded  /bin/\u{202e}c        a.b:22                        any (L4, tls: skip)   12    0.65        permissive  2 of 3
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if rows := proposalRows(list, nil, true); rows[0][0] != "POLICY" || rows[1][0] != "agent" || len(rows[1]) != len(rows[0]) {
		t.Errorf("with the policy: %q", rows[:2])
	}
}

func TestProposalsOfAllPolicies(t *testing.T) {
	n := newNode(t)
	wantContains(t, n.run("proposals"), "No proposals.", "policy=NAME")
	n.learn("zeta", "r1", denied("z.example.com", 443))
	n.learn("alpha", "r1", denied("a.example.com", 8080), denied("b.example.com", 443))
	n.run("approve", "alpha", n.proposals("alpha")["b.example.com"].ID)
	lines := strings.Split(n.run("proposals"), "\n")
	for i, want := range []string{"POLICY", "a.example.com", "b.example.com", "z.example.com"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d lacks %q: %q", i, want, lines)
		}
	}
	var list []learn.Proposal
	if err := json.Unmarshal([]byte(n.run("proposals", "--json")), &list); err != nil || len(list) != 3 || list[2].Policy != "zeta" {
		t.Errorf("%v: %+v", err, list)
	}
}

func TestOutputIsDeterministic(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", request("api.github.com", "GET", "/a"), denied("api.github.com", 443), denied("b.example.com", 443))
	id := n.proposals("agent")["api.github.com"].ID
	for _, args := range [][]string{{"proposals"}, {"show", id}, {"show", id, "--json"}, {"policy", "show", "agent"}} {
		first := n.run(args...)
		for range 5 {
			if again := n.run(args...); again != first {
				t.Fatalf("%q differs:\n%s\n%s", args, first, again)
			}
		}
	}
}
