// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

// Whatever a workload asks for, what is written of it leaves the terminal alone.
func TestHostileProposals(t *testing.T) {
	const evil = "x\x1b]0;y\a\u202e\u00a0\u2028z"
	rule := &policy.Rule{Name: "evil_1", Endpoints: []policy.Endpoint{{Host: "a.example", Port: 443, Protocol: policy.ProtocolREST,
		Enforcement: policy.EnforcementEnforce, Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: "/*"}}}}},
		Binaries: []policy.Binary{{Path: "/usr/bin/x"}}}
	p := &learn.Proposal{ID: "p-1", Kind: learn.KindNetwork, Policy: evil, Status: evil, RuleName: "evil_1", Edit: learn.Edit{Rule: rule}, Binary: evil, BinarySHA256: evil,
		Ancestors: []string{evil}, Rationale: evil, SecurityNotes: []string{evil}, DecidedBy: evil, RejectionReason: evil, SupersededBy: evil,
		Provenance: learn.Provenance{Mode: evil, TTL: evil, Runs: []learn.RunEvidence{{Run: evil, Sandbox: evil, Image: evil}}},
		Evidence: learn.ProposalEvidence{Reasons: map[string]int{evil: 1}, TLS: evil, ResolvedIPs: []string{evil},
			Samples: []learn.Sample{{Method: evil, Path: evil}}, Files: []learn.FileUse{{Path: "/" + evil, Reason: evil, Samples: []string{evil}}}}}
	var b bytes.Buffer
	WriteSummary(&b, p, nil)
	WriteNotes(&b, p, evil)
	if err := WriteRule(&b, p); err != nil {
		t.Fatal(err)
	}
	rule.Binaries[0].Path = "/usr/" + evil
	if err := WriteRule(&b, p); err == nil {
		t.Error("a rule with invisible characters was written")
	}
	WriteEvidence(&b, p)
	WriteDifference(&b, []string{"+ " + evil})
	WriteUnproposed(&b, "", []learn.RunRecord{{Notes: []learn.NoteCount{{Kind: learn.NoteOther, Samples: []string{evil}}}}})
	if err := WriteRuns(&b, p.Provenance.Runs); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{b.String(), Subject(p), Endpoint(p), What(p), Programs(p)} {
		if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r)) }); i >= 0 {
			t.Errorf("%q is written", text[max(i-20, 0):min(i+20, len(text))])
		}
	}
}
