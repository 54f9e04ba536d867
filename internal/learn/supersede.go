// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"slices"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// supersede marks the pending proposals that would add nothing to the learned rules any more, and
// returns them. The caller holds the policy's lock.
func supersede(b *state.Batch, store *state.Store, policyName string, learned *policy.Policy,
	approved []Proposal) ([]Proposal, error) {
	all, err := List(store, policyName)
	if err != nil {
		return nil, err
	}
	var superseded []Proposal
	for i := range all {
		p := &all[i]
		by := slices.IndexFunc(approved,
			func(a Proposal) bool { return a.ID != p.ID && a.Kind == p.Kind && p.kind().related(&a, p) })
		decided := slices.ContainsFunc(approved, func(a Proposal) bool { return a.ID == p.ID })
		if p.Status != StatusPending || decided || by < 0 || !p.kind().covered(p, learned) {
			continue
		}
		p.Status, p.SupersededBy = StatusSuperseded, approved[by].ID
		if _, err := stageProposal(b, store, p); err != nil {
			return superseded, err
		}
		superseded = append(superseded, *p)
	}
	return superseded, nil
}

// revive makes the proposals pending again that one had superseded. The caller holds the policy's lock.
func revive(b *state.Batch, store *state.Store, policyName, by string) error {
	all, err := List(store, policyName)
	if err != nil {
		return err
	}
	for i := range all {
		p := &all[i]
		if p.Status != StatusSuperseded || p.SupersededBy != by {
			continue
		}
		p.Status, p.SupersededBy = StatusPending, ""
		if _, err := stageProposal(b, store, p); err != nil {
			return err
		}
	}
	return nil
}
