// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox/local"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/identity"
)

// localHandler answers the workload at http://policy.local/.
func (s *Sandbox) localHandler() http.Handler {
	if !s.config.PolicyLocal.Enabled {
		return local.Disabled()
	}
	return local.Handler(own{s})
}

// own is the sandbox as its workload may ask about it.
type own struct{ *Sandbox }

// Policy implements local.Sandbox.
func (s own) Policy() *policy.Policy { return s.rules.Load().policies.Effective }

// Denials implements local.Sandbox.
func (s own) Denials(n int) []string { return s.denials.last(n) }

// Propose implements local.Sandbox.
func (s own) Propose(ctx context.Context, p local.Proposal) ([]local.Submitted, error) {
	caller, ok := proxy.Caller(ctx)
	if !ok {
		return nil, local.ErrUnknownCaller
	}
	return s.proposeFor(caller, p)
}

func (s *Sandbox) proposeFor(caller identity.Process, p local.Proposal) ([]local.Submitted, error) {
	if !s.begin() {
		return nil, errEnding
	}
	defer s.wg.Done()
	submission := learn.Submission{
		Policy: s.request.Policy, Run: s.thisRun, Intent: p.Intent,
		Binary: caller.Path, SHA256: caller.SHA256, Ancestors: caller.Ancestors,
	}
	for _, op := range p.Operations {
		submission.Operations = append(submission.Operations, learn.Operation{RuleName: op.RuleName, Rule: op.Rule})
	}
	results, err := learn.Submit(s.store, submission)
	if err != nil {
		s.recordError("what the workload proposed was not written", err)
		return nil, err
	}
	var submitted []local.Submitted
	for i, r := range results {
		submitted = append(submitted, local.Submitted{ID: r.ID, Accepted: r.Accepted, Reason: r.Reason})
		s.recordProposed(caller.Path, p.Operations[i].RuleName, r)
	}
	return submitted, nil
}

func (s *Sandbox) recordProposed(binary, rule string, r learn.Submitted) {
	text := fmt.Sprintf("%s proposes %s as %s", audit.Escape(binary, 256), audit.Escape(rule, 64), r.ID)
	if !r.Accepted {
		text = fmt.Sprintf("%s proposed %s in vain: %s", audit.Escape(binary, 256), audit.Escape(rule, 64), r.Reason)
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "PROPOSED", Message: text})
}

// agentProposal reads a proposal that a workload with this policy made. Others
// are not its business.
func (s *Sandbox) agentProposal(id string) (learn.Proposal, error) {
	p, err := learn.Get(s.store, id)
	if err == nil && (p.Policy != s.request.Policy || p.Provenance.Mode != learn.ModeAgent) {
		err = fmt.Errorf("proposal %s: %w", id, fs.ErrNotExist)
	}
	return p, err
}

// Status implements local.Sandbox.
func (s own) Status(id string) (local.Status, error) {
	if state.CheckName(id) != nil {
		return local.Status{}, fs.ErrNotExist // it can be none
	}
	p, err := s.agentProposal(id)
	if err != nil {
		return local.Status{}, err
	}
	policies := s.rules.Load().policies
	status := local.Status{
		ID: p.ID, Status: p.Status, RuleName: p.RuleName, Binary: p.Binary,
		RejectionReason: p.RejectionReason, ReviewToken: p.Digest,
		CurrentHash: policies.Effective.Digest(), CandidateHash: policies.Effective.Digest(),
	}
	added := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{p.RuleName: p.Rule}}
	if known := policies.Learned.Network[p.RuleName]; known != nil && policy.RuleDigest(known) == p.Digest {
		status.Loaded = true
		return status, nil
	}
	status.CandidateHash = policy.Merge(policies.Effective, added).Digest()
	if err := policies.CheckAddition(added); err != nil {
		status.ValidationResult = err.Error()
	}
	if p.Status == learn.StatusApproved {
		s.mu.Lock()
		status.ApplicationError = s.info.PolicyError
		s.mu.Unlock()
	}
	return status, nil
}

const (
	// decisionPoll is how often a proposal is looked at while somebody waits for
	// the decision.
	decisionPoll = 250 * time.Millisecond
	// loadWait is how long an approval may take to be in force.
	loadWait = 10 * time.Second
)

// Await implements local.Sandbox.
func (s own) Await(ctx context.Context, id string) (local.Status, error) {
	poll := time.NewTicker(decisionPoll)
	defer poll.Stop()
	var seen fileMark
	var status local.Status
	var err error
	for approved := (<-chan time.Time)(nil); ; {
		path := s.store.ProposalPath(s.request.Policy, id)
		if mark := markFile(path); mark != seen || approved != nil || status.ID == "" {
			seen = mark
			if status, err = s.Status(id); err != nil {
				return status, err
			}
		}
		switch {
		case status.Status != learn.StatusPending && status.Status != learn.StatusApproved, status.Loaded:
			return status, nil
		case status.Status == learn.StatusApproved && approved == nil:
			approved = time.After(loadWait)
			// Who approves tells the sandbox, or its watch does; neither has to be
			// waited for.
			s.reloadIfChanged()
			continue
		}
		select {
		case <-poll.C:
		case <-approved:
			return status, nil
		case <-ctx.Done():
			return status, nil
		case <-s.ctx.Done():
			return status, nil
		}
	}
}
