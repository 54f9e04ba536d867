// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"errors"
	"fmt"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/policy"
)

// choice is what is to be approved of a proposal.
type choice struct {
	proposal learn.Proposal
	edit     learn.Edit
	id       string // as the reviewer named it, with or without a digest
}

// pinned has the decision hold for what was looked at: what the reviewer says that was, or the proposal that
// was checked here.
func (c *choice) pinned() string {
	if c.id != Bare(c.id) {
		return c.id
	}
	return c.proposal.ID + "@" + c.proposal.Digest
}

// pinned are the ids of choices, each for what was looked at.
func pinned(all []choice) []string {
	var ids []string
	for i := range all {
		ids = append(ids, all[i].pinned())
	}
	return ids
}

// check reports what is in the way of approving all of them.
func check(now *policystore.Policies, all []choice) error {
	if _, exceeding := allowed(now, all); exceeding != nil {
		return exceeding
	}
	return checkTogether(now, all)
}

// allowed are those of them that do not exceed the node's maximum policy by themselves; the error names the
// others.
func allowed(now *policystore.Policies, all []choice) (some []choice, exceeding error) {
	var errs []error
	for i := range all {
		c := &all[i]
		added := &policy.Policy{Version: 1}
		c.proposal.AddEditTo(added, c.edit)
		if err := now.CheckAddition(added); err != nil {
			errs = append(errs, fmt.Errorf("proposal %s is not approved: %w", c.proposal.ID, err))
			continue
		}
		some = append(some, *c)
	}
	return some, errors.Join(errs...)
}

// checkTogether reports what all of them would make of the effective policy that must not be. Each may be fine,
// and there may still be too many paths together, or endpoints that contradict those of the base.
func checkTogether(now *policystore.Policies, all []choice) error {
	learned := now.Learned.Clone()
	for i := range all {
		all[i].proposal.AddEditTo(learned, all[i].edit)
	}
	effective := policy.Merge(now.Base, learned)
	if err := effective.Validate(); err != nil {
		return fmt.Errorf("nothing is approved: the effective policy would not be valid: %w", err)
	}
	// Rules for one host decide together.
	if err := now.CheckWithin(effective); err != nil {
		return fmt.Errorf("nothing is approved: with these rules %w", err)
	}
	return nil
}
