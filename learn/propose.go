package learn

import (
	"cmp"
	"iter"
	"slices"
)

// Gather adds up the denials of a run, by what a rule for them would name. Denials that no
// rule can be made for are left out. The result is in order of the proposals' ids.
func Gather(run Run, denials iter.Seq[Denial]) []*Evidence {
	byTarget := map[target]*Evidence{}
	for d := range denials {
		t, ok := targetOf(d)
		if !ok {
			continue
		}
		e, ok := byTarget[t]
		if !ok {
			e = newEvidence(run.Policy, t)
			byTarget[t] = e
		}
		e.add(run, d)
	}
	all := make([]*Evidence, 0, len(byTarget))
	taken := map[string]bool{}
	for _, e := range byTarget {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Evidence) int { return cmp.Compare(longID(a.policy, a.target), longID(b.policy, b.target)) })
	for _, e := range all {
		if taken[e.id] {
			e.id = longID(e.policy, e.target)
		}
		taken[e.id] = true
	}
	return all
}

// Propose returns the proposals that a run's denials amount to, best first. It is what a
// Learner does, without a store.
func Propose(run Run, denials iter.Seq[Denial]) []Proposal {
	var proposals []Proposal
	for _, e := range Gather(run, denials) {
		if p, ok := newProposal(e); ok {
			proposals = append(proposals, p)
		}
	}
	sortProposals(proposals)
	return proposals
}

// sortProposals puts the most plausible first.
func sortProposals(proposals []Proposal) {
	slices.SortFunc(proposals, func(a, b Proposal) int {
		return cmp.Or(cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.RuleName, b.RuleName))
	})
}
