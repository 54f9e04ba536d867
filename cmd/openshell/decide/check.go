package decide

import (
	"errors"
	"fmt"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/sandbox"
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

// check reports what is in the way of approving all of them: the node's maximum policy, or that the effective
// policy would not be valid. Each may be fine, and there may still be too many paths together, or
// endpoints that contradict those of the base.
func check(now *sandbox.Policies, all []choice) error {
	learned := now.Learned.Clone()
	var exceeding []error
	for i := range all {
		c := &all[i]
		added := &policy.Policy{Version: 1}
		c.proposal.AddEditTo(added, c.edit)
		if err := now.CheckAddition(added); err != nil {
			exceeding = append(exceeding, fmt.Errorf("proposal %s is not approved: %w", c.proposal.ID, err))
		}
		c.proposal.AddEditTo(learned, c.edit)
	}
	if len(exceeding) > 0 {
		return errors.Join(exceeding...)
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
