// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"slices"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

// supersede marks the pending proposals that would add nothing to the learned rules any more, and
// returns them. The caller holds the policy's lock.
func supersede(b *state.Batch, store *state.Store, policyName string, learned *policy.Policy, approved []Proposal) ([]Proposal, error) {
	all, err := List(store, policyName)
	if err != nil {
		return nil, err
	}
	var superseded []Proposal
	for i := range all {
		p := &all[i]
		by := slices.IndexFunc(approved, func(a Proposal) bool { return a.ID != p.ID && related(&a, p) })
		decided := slices.ContainsFunc(approved, func(a Proposal) bool { return a.ID == p.ID })
		if p.Status != StatusPending || decided || by < 0 || !covered(p, learned) {
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

// related reports whether two proposals are for files, or their rules name a host in common.
func related(a, b *Proposal) bool {
	if a.Kind != b.Kind || a.Kind == KindFilesystem {
		return a.Kind == b.Kind
	}
	return slices.ContainsFunc(a.Rule.Endpoints, func(e policy.Endpoint) bool { return names(b.Rule, e.Host) })
}

func names(r *policy.Rule, host string) bool {
	return slices.ContainsFunc(r.Endpoints, func(e policy.Endpoint) bool { return e.Host == host })
}

// covered reports whether the other learned rules are known to allow all that a proposal's does. What the
// proposal itself once had approved does not count: it would be undone with it.
func covered(p *Proposal, learned *policy.Policy) bool {
	if p.Kind == KindFilesystem {
		return filesCovered(p, learned)
	}
	alone := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{}, Network: map[string]*policy.Rule{p.RuleName: asLearned(p.Rule)}}
	near := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{}, Network: map[string]*policy.Rule{}}
	for key, r := range learned.Network {
		if key != p.RuleName && slices.ContainsFunc(p.Rule.Endpoints, func(e policy.Endpoint) bool { return names(r, e.Host) }) {
			near.Network[key] = asLearned(r)
		}
	}
	return prover.Within(alone, near) == nil
}

// asLearned is a rule as it is in the effective policy.
func asLearned(r *policy.Rule) *policy.Rule {
	c := r.Clone()
	c.Learned = true
	return c
}

// filesCovered is covered for paths, which are also covered by a directory above them. A proposal of which
// an earlier state is in force still has to be looked at.
func filesCovered(p *Proposal, learned *policy.Policy) bool {
	if p.InForce != nil || learned.Filesystem == nil {
		return false
	}
	rules := FileRules{ReadOnly: learned.Filesystem.ReadOnly, ReadWrite: learned.Filesystem.ReadWrite}
	allowed := func(paths []string, op FileOp) bool {
		return !slices.ContainsFunc(paths, func(path string) bool { return !rules.Allows(FileAccess{Path: path, Op: op}) })
	}
	return allowed(p.Filesystem.ReadOnly, OpRead) && allowed(p.Filesystem.ReadWrite, OpWrite)
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
