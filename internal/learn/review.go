// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// Result is what a review changed.
type Result struct {
	Approved   []Proposal
	Superseded []Proposal // pending ones that have become superfluous
	Diff       []string   // of the learned policy, one line a difference
}

// List returns a policy's proposals, the most plausible first. A policy without state has none.
func List(store *state.Store, policyName string) ([]Proposal, error) {
	if err := store.Recover(policyName); err != nil {
		return nil, err
	}
	ids, err := store.ProposalIDs(policyName)
	if err != nil {
		return nil, err
	}
	proposals := make([]Proposal, 0, len(ids))
	for _, id := range ids {
		p, err := loadProposal(store, policyName, id)
		if err != nil {
			return nil, err
		}
		proposals = append(proposals, p)
	}
	sortProposals(proposals)
	markVarying(proposals)
	return proposals, nil
}

// Get finds a proposal by its id, whatever its policy. The error for an unknown id is
// fs.ErrNotExist.
func Get(store *state.Store, id string) (Proposal, error) {
	if err := state.CheckName(id); err != nil {
		return Proposal{}, fmt.Errorf("proposal: %w", err)
	}
	policies, err := store.Policies()
	if err != nil {
		return Proposal{}, err
	}
	for _, name := range policies {
		if err := store.Recover(name); err != nil {
			return Proposal{}, err
		}
		p, err := loadProposal(store, name, id)
		if !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	return Proposal{}, fmt.Errorf("proposal %s: %w", id, fs.ErrNotExist)
}

// Approve puts the rules of the proposals into the learned policy, each under its own key, all
// or none. An id may be followed by "@" and the digest of the rule that was looked at; the
// approval fails if the proposal has another one by now. Approving again what is
// approved, also where it was tightened, changes nothing.
func Approve(store *state.Store, policyName string, ids []string, by string) (Result, error) {
	return ApproveChosen(store, policyName, by, func() ([]string, error) { return ids, nil })
}

// ApproveChosen is Approve of what choose names. No proposal changes between its looking at them and the
// approval: runs that learn wait meanwhile.
func ApproveChosen(store *state.Store, policyName, by string, choose func() ([]string, error)) (Result, error) {
	unlock, err := lockToDecide(store, policyName)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	ids, err := choose()
	if err != nil {
		return Result{}, err
	}
	choices := make([]choice, len(ids))
	for i, id := range ids {
		choices[i].id = id
	}
	return approveChoices(store, policyName, choices, by)
}

// approveChoices approves proposals. The caller holds the policy's lock.
func approveChoices(store *state.Store, policyName string, choices []choice, by string) (Result, error) {
	learned, err := LearnedPolicy(store, policyName)
	if err != nil {
		return Result{}, err
	}
	ledger, err := newLedger(store, policyName)
	if err != nil {
		return Result{}, err
	}
	before := learned.Clone()
	var approved []Proposal
	for _, c := range choices {
		p, err := reviewed(store, policyName, c.id)
		if err != nil {
			return Result{}, err
		}
		before := p.granted()
		if slices.ContainsFunc(approved, func(o Proposal) bool { return o.ID == p.ID }) {
			continue
		}
		stands := p.Status == StatusApproved && p.kind().inForce(&p, learned)
		if stands && c.edit == nil {
			continue
		}
		if err := p.tighten(c.edit); err != nil {
			return Result{}, err
		}
		if stands && p.kind().digest(p.granted()) == p.kind().digest(before) {
			continue // the same edit again
		}
		p.kind().add(ledger, learned, &p, p.granted())
		p.decide(StatusApproved, by)
		p.RejectionReason = ""
		approved = append(approved, p)
	}
	if len(approved) == 0 {
		return Result{}, nil
	}
	b := store.Batch(policyName)
	if err := stageLearned(b, store, policyName, learned, approved); err != nil {
		return Result{}, err
	}
	for i := range approved {
		if _, err := stageProposal(b, store, &approved[i]); err != nil {
			return Result{}, err
		}
	}
	superseded, err := supersede(b, store, policyName, learned, approved)
	if err != nil {
		return Result{}, err
	}
	// An approval without its rule would be a lie, and so would a rule that
	// nobody has approved.
	if err := b.Commit(); err != nil {
		return Result{}, err
	}
	return Result{Approved: approved, Superseded: superseded, Diff: difference(before, learned)}, nil
}

// reviewed reads the proposal that an argument of a review names: an id, or id@digest.
func reviewed(store *state.Store, policyName, arg string) (Proposal, error) {
	id, digest, pinned := strings.Cut(arg, "@")
	p, err := loadProposal(store, policyName, id)
	if err != nil {
		return p, err
	}
	if pinned && digest != p.Digest {
		return p, fmt.Errorf("proposal %s: its rule has changed: look at it again", id)
	}
	return p, nil
}

// decide puts down a decision, and whose it is.
func (p *Proposal) decide(status, by string) {
	now := time.Now().UTC().Truncate(time.Second)
	p.Status, p.DecidedAt, p.DecidedBy = status, &now, audit.Escape(by, maxShownName)
}

// Reject marks a proposal as not wanted, which it stays unless its rule changes. An approved one
// has to be undone first. Where an earlier rule of the proposal was approved, that one stays.
func Reject(store *state.Store, policyName, id, reason, by string) error {
	unlock, err := lockToDecide(store, policyName)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := reviewed(store, policyName, id)
	if err != nil {
		return err
	}
	if p.Status == StatusApproved {
		return fmt.Errorf("proposal %s: is approved: undo that first", p.ID)
	}
	p.decide(StatusRejected, by)
	p.RejectionReason = audit.Escape(reason, maxShownReason)
	return saveProposal(store, &p)
}

// Undo takes exactly the proposal's rule out of the learned policy again, and makes the
// proposal pending, and those that were superfluous beside it. It returns the
// difference of the learned policy.
func Undo(store *state.Store, policyName, id, by string) ([]string, error) {
	unlock, err := lockToDecide(store, policyName)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := reviewed(store, policyName, id)
	if err != nil {
		return nil, err
	}
	learned, err := LearnedPolicy(store, policyName)
	if err != nil {
		return nil, err
	}
	ledger, err := newLedger(store, policyName)
	if err != nil {
		return nil, err
	}
	before := learned.Clone()
	if !p.CanUndo(learned) {
		return nil, fmt.Errorf("proposal %s: is not approved", p.ID)
	}
	p.kind().remove(ledger, learned, &p)
	p.Tightened = nil
	p.decide(StatusPending, by)
	b := store.Batch(policyName)
	if err := stageLearned(b, store, policyName, learned, []Proposal{p}); err != nil {
		return nil, err
	}
	if _, err := stageProposal(b, store, &p); err != nil {
		return nil, err
	}
	if err := revive(b, store, policyName, p.ID); err != nil {
		return nil, err
	}
	if err := b.Commit(); err != nil {
		return nil, err
	}
	return difference(before, learned), nil
}

// CanUndo reports whether there is anything of the proposal in force: also an earlier rule of one that
// has grown since it was approved.
func (p *Proposal) CanUndo(learned *policy.Policy) bool {
	return p.Status == StatusApproved || p.InForce != nil || learned.Network[p.RuleName] != nil
}

// lockToDecide locks a policy, and removes what a decision that was killed has left.
func lockToDecide(store *state.Store, policyName string) (unlock func(), err error) {
	unlock, err = store.Lock(policyName)
	if err == nil {
		_ = store.RemoveLeftovers(policyName) // they are in nobody's way
	}
	return unlock, err
}

// loadProposal reads and checks a proposal.
func loadProposal(store *state.Store, policyName, id string) (Proposal, error) {
	for _, name := range []string{policyName, id} {
		if err := state.CheckName(name); err != nil {
			return Proposal{}, fmt.Errorf("proposal: %w", err)
		}
	}
	var p Proposal
	err := state.ReadJSON(store.ProposalPath(policyName, id), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return Proposal{}, fmt.Errorf("policy %s: proposal %s: %w", policyName, id, fs.ErrNotExist)
	}
	if err != nil {
		return Proposal{}, err
	}
	if p.ID != id || p.Policy != policyName {
		return Proposal{}, fmt.Errorf("proposal %s of policy %s: the file says %.140q of policy %.140q", id, policyName,
			p.ID, p.Policy)
	}
	p.adoptNotes()
	return p, p.check()
}

// saveProposal writes a proposal; the caller holds the policy's lock.
func saveProposal(store *state.Store, p *Proposal) error {
	return state.WriteJSON(store.ProposalPath(p.Policy, p.ID), p)
}

// stageProposal is saveProposal in a batch. It returns the file's size.
func stageProposal(b *state.Batch, store *state.Store, p *Proposal) (size int64, err error) {
	return b.PutJSON(store.ProposalPath(p.Policy, p.ID), p)
}
