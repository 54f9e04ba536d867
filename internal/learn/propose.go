// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"slices"
)

// maxGathered bounds what a Gatherer keeps, in bytes of memory as far as they are counted.
const maxGathered = 128 << 20

// Gatherer adds up what runs were denied, as a Learner does, in memory and without a store: the
// proposals are those that a Learner would have written. It is bounded: proposals that lack something for that
// say so, and what there is no room for is counted.
type Gatherer struct {
	policy   string
	evidence map[target]*Evidence
	notes    noteCounts
	left     int // the targets that there is still room for
	size     int // of all evidence, in bytes
	lost     int
}

// NewGatherer returns a Gatherer of proposals for a policy.
func NewGatherer(policyName string) *Gatherer {
	return &Gatherer{policy: policyName, evidence: map[target]*Evidence{}, notes: noteCounts{}, left: maxProposals}
}

// Observe takes in a denial. It is false where no rule can be made for it, or where there is no room for
// yet another proposal; then it is counted among the notes.
func (g *Gatherer) Observe(run Run, d Denial) bool {
	t, ok := targetOf(d)
	if !ok {
		g.notes.add(noteOf(d))
		return false
	}
	return g.take(t, noteOf(d), func(e *Evidence) { e.add(run, d) })
}

// ObserveFile is Observe for what a program did to a file.
func (g *Gatherer) ObserveFile(run Run, a FileAccess) bool {
	note := Note{Kind: NoteUnnamed, Host: a.Path, Binary: a.Binary, Reason: "no policy can grant " + a.Op.String()}
	n, ok := requestFor(a)
	if !ok {
		g.notes.add(note)
		return false
	}
	return g.take(n.target(), note, func(e *Evidence) { e.addFile(run, n, a) })
}

func (g *Gatherer) take(t target, note Note, add func(*Evidence)) bool {
	e, ok := g.evidence[t]
	full := g.size >= maxGathered
	switch {
	case !ok && (g.left == 0 || full):
		note.Kind, note.Reason = NoteOther, "there is no room for more proposals"
		g.notes.add(note)
		g.lost++
		return false
	case !ok:
		g.left--
		e = newEvidence(g.policy, t)
		g.evidence[t] = e
		g.size += e.size()
	case full:
		e.hits++
		e.truncated = true
		return true
	}
	before := e.size()
	add(e)
	g.size += e.size() - before
	return true
}

// Lost is how often there was no room for another proposal.
func (g *Gatherer) Lost() int { return g.lost }

// Proposals returns the proposals that the denials amount to, best first.
func (g *Gatherer) Proposals() []Proposal {
	all := make([]*Evidence, 0, len(g.evidence))
	for _, e := range g.evidence {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Evidence) int {
		return cmp.Compare(longID(a.policy, a.target),
			longID(b.policy, b.target))
	})
	taken := map[string]bool{}
	var proposals []Proposal
	for _, e := range all {
		if taken[e.id] {
			e.id = longID(e.policy, e.target)
		}
		taken[e.id] = true
		if p, ok := newProposal(e); ok {
			proposals = append(proposals, p)
		}
	}
	sortProposals(proposals)
	markVarying(proposals)
	return proposals
}

// Note counts what is no evidence for a rule.
func (g *Gatherer) Note(n Note) { g.notes.add(n) }

// Notes returns what no proposal was made of.
func (g *Gatherer) Notes() []NoteCount {
	all := noteCounts{}
	for kind, n := range g.notes {
		sum := *n
		all[kind] = &sum
	}
	for _, e := range g.evidence {
		if _, ok := newProposal(e); !ok {
			n := noteOfEvidence(e)
			all.add(n)
			all[n.Kind].Count += e.hits - 1
		}
	}
	return all.list()
}

// sortProposals puts the most plausible first.
func sortProposals(proposals []Proposal) {
	slices.SortFunc(proposals, func(a, b Proposal) int {
		return cmp.Or(cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.RuleName, b.RuleName))
	})
}
