// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/sandbox"
)

// Settle has the sandboxes of a policy write down what they have seen. It fails where evidence is being lost:
// who approves all at once could not know of what.
func (r *Reviewer) Settle(ctx context.Context, policyName string) error {
	if err := sandbox.Settle(ctx, r.Config.RunDir, policyName); err != nil {
		return fmt.Errorf("nothing is approved, since not all that was seen is proposed: %w: --include-truncated accepts that", err)
	}
	return nil
}

// ApproveAll approves all that is pending for a policy, unseen and as it is at that moment, a run that still
// learns notwithstanding. It leaves out what exceeds the node's maximum policy, and what nobody should approve
// without a look, unless that is included. The error names what was left out.
func (r *Reviewer) ApproveAll(ctx context.Context, policyName string, include learn.Include) (Change, error) {
	var leftOut error
	c, err := r.change(ctx, policyName, func(now *policystore.Policies, c *Change) error {
		result, err := learn.ApproveChosen(r.Store, policyName, r.By, func() (ids []string, err error) {
			if ids, leftOut, err = r.pending(policyName, include); err != nil {
				return nil, err
			}
			c.Pending = len(ids)
			all, err := r.choices(policyName, ids)
			if err != nil {
				return nil, err
			}
			some, exceeding := allowed(now, all)
			leftOut = errors.Join(exceeding, leftOut)
			return pinned(some), checkTogether(now, some)
		})
		c.Approved, c.Superseded = result.Approved, result.Superseded
		return err
	})
	return c, errors.Join(err, leftOut)
}

// pending names the proposals of a policy that may be approved together, unseen, each as id@digest: those
// that wait for a decision. What is left out is named in leftOut.
func (r *Reviewer) pending(policyName string, include learn.Include) (ids []string, leftOut, err error) {
	proposals, err := learn.List(r.Store, policyName)
	if err != nil {
		return nil, nil, err
	}
	left := map[string][]string{} // by the reason
	for i := range proposals {
		p := &proposals[i]
		if p.Status != learn.StatusPending {
			continue
		}
		if why := include.LeavesOut(p); why != "" {
			left[why] = append(left[why], p.ID)
			continue
		}
		ids = append(ids, p.ID+"@"+p.Digest)
	}
	leftOut, err = r.leftOut(policyName, left, include)
	return ids, leftOut, err
}

// leftOut says what was left out: proposals, or what there are no proposals for at all.
func (r *Reviewer) leftOut(policyName string, left map[string][]string, include learn.Include) (leftOut, err error) {
	var reasons []string
	for _, by := range learn.Reasons() {
		if ids := left[by.Reason]; len(ids) > 0 {
			reasons = append(reasons, fmt.Sprintf("not approved, because %s: %s: look at them with openshell show, or use --%s",
				by.Reason, strings.Join(ids, ", "), by.Flag))
		}
	}
	lost := 0
	if !include.Truncated {
		runs, err := learn.Runs(r.Store, policyName)
		if err != nil {
			return nil, err
		}
		for i := range runs {
			lost += runs[i].Lost
		}
	}
	if lost > 0 {
		reasons = append(reasons, fmt.Sprintf("%s of policy %s had no room in any proposal: what is approved does not cover all that was seen: --include-truncated accepts that",
			describe.Count(lost, "denial", "denials"), policyName))
	}
	if len(reasons) == 0 {
		return nil, nil
	}
	return errors.New(strings.Join(reasons, "; ")), nil
}

// Match completes the ids of a policy's proposals, each once. All of them are checked before any is
// acted upon.
func (r *Reviewer) Match(policyName string, given []string) ([]string, error) {
	known, err := r.Store.ProposalIDs(policyName)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, arg := range given {
		id, err := MatchID(known, arg)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w: see openshell proposals %s", policyName, err, policyName)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// MatchID completes an id that may be cut short, or lack its "p-". An "@" and a digest
// after it stay.
func MatchID(known []string, arg string) (string, error) {
	prefix, digest, pinned := strings.Cut(arg, "@")
	found := []string{prefix}
	if !slices.Contains(known, prefix) {
		found = slices.DeleteFunc(slices.Clone(known), func(id string) bool {
			return prefix == "" || !strings.HasPrefix(id, prefix) && !strings.HasPrefix(id, "p-"+prefix)
		})
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("proposal %q: there is none", describe.Plain(arg))
	case len(found) > 1:
		return "", fmt.Errorf("proposal %q: is the beginning of %s", describe.Plain(arg), strings.Join(found, " and "))
	case pinned:
		return found[0] + "@" + digest, nil
	}
	return found[0], nil
}

// Bare is an id without the digest.
func Bare(id string) string {
	id, _, _ = strings.Cut(id, "@")
	return id
}
