// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// ModeAgent is the provenance of a rule that a workload asked for itself.
const ModeAgent = "agent"

// Bounds of what a workload may ask for.
const (
	maxOperations   = 32  // in one submission
	maxAgentPending = 256 // proposals of a policy at once
	maxAgentParts   = 64  // endpoints of a rule, and binaries
	maxAgentRules   = 512 // of all its endpoints together
	maxIntent       = 512 // bytes
	agentConfidence = 0.75
)

// Submission is what a workload proposes for its own policy.
type Submission struct {
	Policy     string
	Run        Run
	Binary     string // who asks
	SHA256     string
	Ancestors  []string
	Intent     string // why, in the workload's words
	Operations []Operation
}

// Operation proposes to add a rule.
type Operation struct {
	RuleName string
	Rule     *policy.Rule
}

// Submitted is what became of an operation. The ID is of the proposal where there is one, whether this
// submission made it or an earlier one.
type Submitted struct {
	ID       string
	Accepted bool
	Reason   string // why not, or what was known of it before
}

// Submit makes pending proposals of what a workload asks for, one for each operation, and approves
// nothing. To ask again for the same changes nothing. The error is for what fails
// altogether; an operation that is refused has a reason in the result.
func Submit(store *state.Store, s Submission) ([]Submitted, error) {
	switch n := len(s.Operations); {
	case n == 0:
		return nil, errors.New("operations: is empty: propose at least one rule")
	case n > maxOperations:
		return nil, fmt.Errorf("operations: has %d, at most %d can be submitted at once", n, maxOperations)
	}
	unlock, err := store.Lock(s.Policy)
	if err != nil {
		return nil, err
	}
	defer unlock()
	pending, all, err := agentProposals(store, s.Policy)
	if err != nil {
		return nil, err
	}
	results := make([]Submitted, len(s.Operations))
	for i, op := range s.Operations {
		fresh, err := s.proposal(op)
		if err != nil {
			results[i].Reason = err.Error()
			continue
		}
		known, err := loadProposal(store, s.Policy, fresh.ID)
		switch {
		case err == nil:
			results[i] = known.submittedAgain()
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return results, err
		case pending >= maxAgentPending || all >= maxProposals:
			results[i].Reason = "too many proposals wait for a decision: wait until some are decided"
			continue
		}
		if err := saveProposal(store, &fresh); err != nil {
			return results, err
		}
		pending, all = pending+1, all+1
		results[i] = Submitted{ID: fresh.ID, Accepted: true}
	}
	return results, nil
}

// submittedAgain is the answer for a rule that has a proposal.
func (p *Proposal) submittedAgain() Submitted {
	s := Submitted{ID: p.ID}
	switch p.Status {
	case StatusRejected:
		s.Reason = "was rejected: " + cmp.Or(p.RejectionReason, "no reason given")
	case StatusSuperseded:
		s.Reason = "is allowed already, by proposal " + p.SupersededBy
	case StatusApproved:
		s.Accepted, s.Reason = true, "is approved already"
		if p.Tightened != nil {
			s.Reason = "is approved in part: the reviewer allowed less of it"
		}
	default:
		s.Accepted, s.Reason = true, "is pending already"
	}
	return s
}

// agentProposals counts a policy's proposals: those of workloads that wait for a decision, and all.
func agentProposals(store *state.Store, policyName string) (pending, all int, err error) {
	ids, err := store.ProposalIDs(policyName)
	if err != nil {
		return 0, 0, err
	}
	for _, id := range ids {
		if len(id) != agentIDLength {
			continue
		}
		p, err := loadProposal(store, policyName, id)
		if err != nil {
			return 0, 0, err
		}
		if p.Status == StatusPending {
			pending++
		}
	}
	return pending, len(ids), nil
}

// agentIDLength is the length of ids that no learned proposal has: what a workload asks for
// cannot take the place of what it was seen to do.
const agentIDLength = len("p-") + 16

// proposal checks an operation. The id is the rule's: the same rule is the same proposal.
func (s *Submission) proposal(op Operation) (Proposal, error) {
	rule, err := checkOperation(op)
	if err != nil {
		return Proposal{}, err
	}
	sum := sha256.Sum256([]byte(s.Policy + "\x00" + ModeAgent + "\x00" + policy.RuleDigest(rule)))
	id := "p-" + hex.EncodeToString(sum[:])[:agentIDLength-len("p-")]
	rule.Name = policy.KeyWord(op.RuleName, 64) + "_" + strings.TrimPrefix(id, "p-")

	now := time.Now().UTC().Truncate(time.Second)
	p := Proposal{
		Version: ProposalVersion, ID: id, Policy: s.Policy, Kind: KindNetwork, Status: StatusPending,
		RuleName: rule.Name, Edit: Edit{Rule: rule}, Digest: policy.RuleDigest(rule),
		Binary: audit.Escape(s.Binary, maxShownName), BinarySHA256: audit.Escape(s.SHA256, maxShownName),
		Rationale: audit.Escape(s.Intent, maxIntent), SecurityNotes: ruleNotes(rule, s.Binary), Confidence: agentConfidence,
		Provenance: Provenance{
			Mode: ModeAgent, BasePolicySHA256: s.Run.BasePolicySHA256, TTL: s.Run.TTL,
			Runs: []RunEvidence{{Run: s.Run.ID, Sandbox: s.Run.Sandbox, Image: audit.Escape(s.Run.Image, maxShownName),
				Hits: 1, FirstSeen: now, LastSeen: now}},
		},
		Evidence: ProposalEvidence{Hits: 1, Reasons: map[string]int{}, Samples: []Sample{}, ResolvedIPs: []string{}},
	}
	for _, a := range s.Ancestors[:min(len(s.Ancestors), maxAncestors)] {
		p.Ancestors = append(p.Ancestors, audit.Escape(a, maxShownName))
	}
	return p, nil
}

// checkOperation returns the operation's rule without its name, or why nobody should have to
// review it.
func checkOperation(op Operation) (*policy.Rule, error) {
	switch r := op.Rule; {
	case strings.TrimSpace(op.RuleName) == "":
		return nil, errors.New("rule_name: is required")
	case r == nil || len(r.Endpoints) == 0:
		return nil, errors.New("rule.endpoints: is empty: name what is to be reached")
	case len(r.Binaries) == 0:
		return nil, errors.New("rule.binaries: is empty: name the programs that need it")
	case len(r.Endpoints) > maxAgentParts || len(r.Binaries) > maxAgentParts:
		return nil, fmt.Errorf("rule: has more than %d endpoints or binaries: propose several rules", maxAgentParts)
	}
	rule := op.Rule.Clone()
	rule.Name = ""
	rules := 0
	for i := range rule.Endpoints {
		e := &rule.Endpoints[i]
		rules += len(e.Rules) + len(e.DenyRules)
		if len(e.PortList()) > maxAgentParts || rules > maxAgentRules {
			return nil, fmt.Errorf("rule.endpoints[%d]: has too many ports or rules: at most %d and %d", i, maxAgentParts,
				maxAgentRules)
		}
	}
	if err := rule.Validate(op.RuleName); err != nil {
		return nil, fmt.Errorf("rule: %s", audit.Escape(err.Error(), maxIntent))
	}
	for i := range rule.Endpoints {
		if e := &rule.Endpoints[i]; e.Host != "" && !strings.Contains(e.Host, "*") && !reachable(e) {
			return nil, fmt.Errorf("rule.endpoints[%d].host: %s is never reachable, whatever a policy says", i,
				audit.Escape(e.Host, maxShownName))
		}
	}
	return rule, nil
}

// reachable reports whether the guard on addresses lets an endpoint with an exact host be dialled on
// all its ports.
func reachable(e *policy.Endpoint) bool {
	for _, port := range e.PortList() {
		t := target{host: strings.TrimSuffix(strings.ToLower(e.Host), "."), port: port, binary: "/x"}
		if e.Protocol == policy.ProtocolUDP {
			t.protocol = policy.ProtocolUDP
		}
		if !dialable(t) {
			return false
		}
	}
	return true
}
