package operator

import (
	"errors"
	"fmt"

	"openshell.ai/openshell/config"
	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/sandbox"
	"openshell.ai/openshell/state"
)

// withinMaximum holds proposals that are to be approved against the node's maximum
// policy. It returns their ids with the digests of what was looked at, so that nothing
// else is approved. The error has a reason for each that exceeds the maximum.
func withinMaximum(c *config.Config, store *state.Store, name string, ids []string) ([]string, error) {
	policies, err := sandbox.LoadPolicies(c, name)
	if err != nil || policies.Maximum == nil {
		return ids, err
	}
	candidate := policies.Effective
	var pinned []string
	var exceeding []error
	for _, id := range ids {
		p, err := learn.Get(store, bare(id))
		if err != nil {
			return nil, err
		}
		added := &policy.Policy{Version: 1, Filesystem: p.Filesystem}
		if p.Rule != nil {
			added.Network = map[string]*policy.Rule{p.RuleName: p.Rule}
		}
		candidate = policy.Merge(candidate, added)
		if err := policies.CheckAddition(added); err != nil {
			exceeding = append(exceeding, fmt.Errorf("proposal %s is not approved: %w", p.ID, err))
		}
		if id == bare(id) {
			id += "@" + p.Digest
		}
		pinned = append(pinned, id)
	}
	if len(exceeding) > 0 {
		return nil, errors.Join(exceeding...)
	}
	// Rules for one host decide together.
	if err := policies.CheckWithin(candidate); err != nil {
		return nil, fmt.Errorf("nothing is approved: with these rules %w", err)
	}
	return pinned, nil
}
