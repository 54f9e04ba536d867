// SPDX-License-Identifier: Apache-2.0

// Package decide carries out what a reviewer decides on proposals, the same way whatever the reviewer
// uses: it checks the decision against the node's maximum policy and against what the
// reviewer has looked at, tells what it makes of the effective policy, and brings that to the sandboxes
// that run.
//
// It owns no decision's meaning, which is package learn's, and prints nothing.
package decide

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// Reviewer decides on the proposals of a node.
type Reviewer struct {
	Config *config.Config
	Store  *state.Store
	By     string // who decides, for the record
}

// Change is what became of a decision. It tells of a part that was carried out before an error, too.
type Change struct {
	Approved   []learn.Proposal
	Superseded []learn.Proposal // pending ones that have become superfluous
	Undone     []string         // ids
	NotUndone  []string         // ids of proposals of which nothing was in force
	Pending    int              // how many proposals ApproveAll took into account
	// Difference is that of the effective policy, as policy.Diff tells it, and Reloaded the ids of
	// the sandboxes that use it now.
	Difference []string
	Reloaded   []string
}

// Approve puts the rules of proposals in force, all or none. An id may have "@" and the digest of the rule
// that was looked at after it. They are refused if they exceed the node's maximum policy, or would make
// the effective one invalid, and so is one that grows meanwhile.
func (r *Reviewer) Approve(ctx context.Context, policyName string, ids []string) (Change, error) {
	return r.change(ctx, policyName, func(now *policystore.Policies, c *Change) error {
		all, err := r.choices(policyName, ids)
		if err != nil {
			return err
		}
		if err := check(now, all); err != nil {
			return err
		}
		return r.approve(policyName, all, c)
	})
}

// ApproveAllowed is Approve that leaves out what exceeds the node's maximum policy, and approves the rest.
// The error names what was left out.
func (r *Reviewer) ApproveAllowed(ctx context.Context, policyName string, ids []string) (Change, error) {
	return r.change(ctx, policyName, func(now *policystore.Policies, c *Change) error {
		all, err := r.choices(policyName, ids)
		if err != nil {
			return err
		}
		some, exceeding := allowed(now, all)
		if len(some) == 0 {
			return exceeding
		}
		if err := checkTogether(now, some); err != nil {
			return errors.Join(err, exceeding)
		}
		return errors.Join(r.approve(policyName, some, c), exceeding)
	})
}

// choices are the proposals that ids name, to be approved as they are.
func (r *Reviewer) choices(policyName string, ids []string) ([]choice, error) {
	var all []choice
	for _, id := range ids {
		p, err := r.proposal(policyName, id)
		if err != nil {
			return nil, err
		}
		all = append(all, choice{p, p.Proposed(), id})
	}
	return all, nil
}

// approve puts in force what was checked.
func (r *Reviewer) approve(policyName string, all []choice, c *Change) error {
	result, err := learn.Approve(r.Store, policyName, pinned(all), r.By)
	c.Approved, c.Superseded = result.Approved, result.Superseded
	return err
}

// ApproveEdited is Approve for one proposal, of which less is put in force.
func (r *Reviewer) ApproveEdited(ctx context.Context, policyName, id string, edit learn.Edit) (Change, error) {
	return r.change(ctx, policyName, func(now *policystore.Policies, done *Change) error {
		p, err := r.proposal(policyName, id)
		if err != nil {
			return err
		}
		c := choice{p, edit, id}
		if err := check(now, []choice{c}); err != nil {
			return err
		}
		result, err := learn.ApproveEdited(r.Store, policyName, c.pinned(), edit, r.By)
		done.Approved, done.Superseded = result.Approved, result.Superseded
		return err
	})
}

// Undo takes exactly what was approved of proposals out of the policy again. Those of which nothing is in
// force are left as they are.
func (r *Reviewer) Undo(ctx context.Context, policyName string, ids []string) (Change, error) {
	return r.change(ctx, policyName, func(_ *policystore.Policies, c *Change) error {
		for _, id := range ids {
			p, err := r.proposal(policyName, id)
			if err != nil {
				return err
			}
			learned, err := learn.LearnedPolicy(r.Store, policyName)
			if err != nil {
				return err
			}
			if !p.CanUndo(learned) {
				c.NotUndone = append(c.NotUndone, p.ID)
				continue
			}
			if _, err := learn.Undo(r.Store, policyName, id, r.By); err != nil {
				return err
			}
			c.Undone = append(c.Undone, p.ID)
		}
		return nil
	})
}

// Reject marks a proposal as not wanted. It changes no policy.
func (r *Reviewer) Reject(policyName, id, reason string) error {
	if strings.TrimSpace(reason) == "" {
		return fmt.Errorf("proposal %s: reason: is empty: say why it is not wanted", Bare(id))
	}
	return learn.Reject(r.Store, policyName, id, reason, r.By)
}

// Reload makes the running sandboxes use what the policy's files say, and returns their ids.
func (r *Reviewer) Reload(ctx context.Context, policyName string) ([]string, error) {
	ids, err := sandbox.Reload(ctx, r.Config.RunDir, policyName)
	if err != nil {
		err = fmt.Errorf("policy %s is changed, but not in force everywhere: %w: run the command again", policyName, err)
	}
	return ids, err
}

// Difference is what the effective policy would allow more, or less, if the proposal, or the edit
// of it where that is not nil, were approved now. It is never nil.
func (r *Reviewer) Difference(p *learn.Proposal, edit *learn.Edit) ([]string, error) {
	now, err := policystore.Load(r.Config, p.Policy)
	if err != nil {
		return nil, err
	}
	learned := now.Learned.Clone()
	if edit == nil {
		p.AddTo(learned)
	} else {
		p.AddEditTo(learned, *edit)
	}
	difference := policy.Diff(now.Effective, policy.Merge(now.Base, learned))
	return append([]string{}, difference...), nil
}

// change runs what changes a policy, finds out what that made of the effective one, and brings it to the
// running sandboxes. A change that was made in part is brought there too.
func (r *Reviewer) change(ctx context.Context, policyName string,
	apply func(*policystore.Policies, *Change) error) (Change, error) {
	c, failed, err := r.decide(policyName, apply)
	if err != nil {
		return c, errors.Join(failed, err)
	}
	if failed != nil && len(c.Difference) == 0 {
		return c, failed
	}
	c.Reloaded, err = r.Reload(ctx, policyName)
	return c, errors.Join(failed, err)
}

// decide is change without bringing it anywhere. Nobody else decides meanwhile: what is checked is what
// is changed, and the difference is this decision's alone.
func (r *Reviewer) decide(policyName string,
	apply func(*policystore.Policies, *Change) error) (c Change, failed, err error) {
	unlock, err := r.Store.LockDecisions(policyName)
	if err != nil {
		return c, nil, err
	}
	defer unlock()
	before, err := policystore.Load(r.Config, policyName)
	if err != nil {
		return c, nil, err
	}
	failed = apply(before, &c)
	after, err := policystore.Load(r.Config, policyName)
	if err != nil {
		return c, failed, err
	}
	c.Difference = policy.Diff(before.Effective, after.Effective)
	return c, failed, nil
}

// proposal reads the proposal of a policy that an id, with or without a digest, names.
func (r *Reviewer) proposal(policyName, id string) (learn.Proposal, error) {
	p, err := learn.Get(r.Store, Bare(id))
	if err == nil && p.Policy != policyName {
		err = fmt.Errorf("proposal %s: is for policy %s", p.ID, p.Policy)
	}
	return p, err
}
