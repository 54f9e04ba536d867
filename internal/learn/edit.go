// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

// Edit is what a proposal proposes, or what a reviewer wants allowed instead, which is never more: one of its fields,
// as the proposal's kind has it.
type Edit struct {
	Rule       *policy.Rule       `json:"rule,omitempty"`
	Filesystem *policy.Filesystem `json:"filesystem,omitempty"`
}

// Editable is a policy with nothing in it but what the proposal proposes, or what is in force of it
// tightened, for ParseEdit to read what a reviewer makes of it.
func (p *Proposal) Editable() ([]byte, error) {
	data, err := policy.Marshal(p.alone(p.granted()))
	if err != nil {
		return nil, fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	return data, nil
}

// ParseEdit reads what a reviewer has made of Editable's text. The error is a policy.Errors where
// it is not a policy, and has a *prover.ExcessError in it where it is more than is proposed.
func (p *Proposal) ParseEdit(data []byte) (Edit, error) {
	parsed, _, err := policy.Parse(data)
	if err != nil {
		return Edit{}, err
	}
	edit := Edit{Filesystem: parsed.Filesystem}
	if rule := parsed.Network[p.RuleName]; rule != nil {
		edit.Rule = rule
		rule.Name = cmp.Or(rule.Name, p.RuleName)
	}
	if err := p.checkEdit(edit); err != nil {
		return Edit{}, err
	}
	if parsed.Digest() != p.alone(edit).Digest() {
		return Edit{}, fmt.Errorf("proposal %s: the edit has more in it than %s", p.ID, p.kind().section(p))
	}
	edit.tidy()
	return edit, nil
}

// ApproveEdited is Approve for one proposal, which puts what a reviewer made of it in force in place of
// what it proposes. It fails unless the edit is shown to allow nothing else. The proposal
// itself stays what was seen, so that what was taken out of it is not proposed again, but more
// evidence than it has makes it pending.
func ApproveEdited(store *state.Store, policyName, id string, edit Edit, by string) (Result, error) {
	unlock, err := lockToDecide(store, policyName)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	return approveChoices(store, policyName, []choice{{id, &edit}}, by)
}

// choice is a proposal to approve, and what to approve in its place.
type choice struct {
	id   string // or id@digest
	edit *Edit
}

// tighten has the edit stand for the proposal, or, if it is nil or no different, the proposal for itself.
func (p *Proposal) tighten(edit *Edit) error {
	p.Tightened = nil
	if edit == nil {
		return nil
	}
	if err := p.checkEdit(*edit); err != nil {
		return err
	}
	if !p.sameAs(*edit) {
		tightened := Edit{Filesystem: edit.Filesystem}
		if edit.Rule != nil {
			tightened.Rule = edit.Rule.Clone()
			tightened.Rule.Learned = false // as in a proposal
		}
		p.Tightened = &tightened
	}
	return nil
}

// checkEdit reports what an edit has that the proposal has not.
func (p *Proposal) checkEdit(edit Edit) error {
	if err := p.checkShape(edit); err != nil {
		return err
	}
	// The exact hosts of approved rules do not earn the trust to reach private addresses.
	edited, proposed := p.alone(edit), p.alone(p.Proposed())
	for _, rules := range []*policy.Policy{edited, proposed} {
		for key, r := range rules.Network {
			r = r.Clone()
			r.Learned = true
			rules.Network[key] = r
		}
	}
	if err := prover.Within(edited, proposed); err != nil {
		return fmt.Errorf("proposal %s: the edit must be within what is proposed: %w", p.ID, err)
	}
	return nil
}

// checkShape reports whether an edit can stand for the proposal at all.
func (p *Proposal) checkShape(edit Edit) error {
	if err := p.kind().checkEdit(p, edit); err != nil {
		return fmt.Errorf("proposal %s: the edit %w", p.ID, err)
	}
	return nil
}

// tidy puts paths in the order of learned ones.
func (e *Edit) tidy() {
	if f := e.Filesystem; f != nil {
		slices.Sort(f.ReadOnly)
		slices.Sort(f.ReadWrite)
	}
}

func (p *Proposal) sameAs(edit Edit) bool { return p.kind().digest(edit) == p.Digest }

// Proposed is the proposal as an edit that changes nothing.
func (p *Proposal) Proposed() Edit { return p.Edit }

// granted is what an approval puts in force: what is proposed, or what a reviewer made of it.
func (p *Proposal) granted() Edit {
	if p.Tightened != nil {
		return *p.Tightened
	}
	return p.Proposed()
}

// alone is a policy of one part.
func (p *Proposal) alone(part Edit) *policy.Policy {
	alone := &policy.Policy{Version: 1, Filesystem: part.Filesystem}
	if part.Rule != nil {
		alone.Network = map[string]*policy.Rule{p.RuleName: part.Rule}
	}
	return alone
}

// checkTightened is check for what a reviewer has made of the proposal. A proposal that has grown since
// still contains it.
func (p *Proposal) checkTightened() error {
	if p.Tightened == nil {
		return nil
	}
	if err := p.checkShape(*p.Tightened); err != nil {
		return errors.Join(errors.New("tightened: the file was changed by hand"), err)
	}
	return nil
}
