// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"slices"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// AddTo adds what the proposal proposes to learned rules, in place of what an earlier approval of it
// has added.
func (p *Proposal) AddTo(learned *policy.Policy) { p.AddEditTo(learned, p.Proposed()) }

// AddEditTo is AddTo for what a reviewer has made of the proposal.
func (p *Proposal) AddEditTo(learned *policy.Policy, edit Edit) {
	added := *p
	p.kind().add(&ledger{}, learned, &added, edit)
}

// ledger knows which proposals the learned paths come from: two may grant the same, and somebody
// may have added one by hand.
type ledger struct {
	inForce map[string]*policy.Filesystem // by the proposals' ids
}

func newLedger(store *state.Store, policyName string) (*ledger, error) {
	all, err := List(store, policyName)
	if err != nil {
		return nil, err
	}
	l := &ledger{inForce: map[string]*policy.Filesystem{}}
	for i := range all {
		if all[i].InForce != nil {
			l.inForce[all[i].ID] = all[i].InForce
		}
	}
	return l, nil
}

// add puts the proposal's paths, or those of them that were approved, into the learned policy, and notes
// which were not there by hand.
func (l *ledger) add(learned *policy.Policy, p *Proposal, granted *policy.Filesystem) {
	l.remove(learned, p)
	files := learned.Filesystem
	if files == nil {
		files = &policy.Filesystem{}
	}
	took := &policy.Filesystem{}
	files.ReadOnly, took.ReadOnly = l.addPaths(files.ReadOnly, granted.ReadOnly, readOnly)
	files.ReadWrite, took.ReadWrite = l.addPaths(files.ReadWrite, granted.ReadWrite, readWrite)
	learned.Filesystem, p.InForce = files, took
	if l.inForce != nil {
		l.inForce[p.ID] = took
	}
}

func readOnly(f *policy.Filesystem) []string  { return f.ReadOnly }
func readWrite(f *policy.Filesystem) []string { return f.ReadWrite }

func (l *ledger) addPaths(paths, more []string, which func(*policy.Filesystem) []string) (all, took []string) {
	for _, p := range more {
		if slices.Contains(paths, p) && !l.held(p, which) {
			continue
		}
		took = append(took, p)
		if !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths, took
}

// remove takes exactly those paths out that the proposal added and no other holds.
func (l *ledger) remove(learned *policy.Policy, p *Proposal) {
	old := p.InForce
	if old == nil || learned.Filesystem == nil {
		return
	}
	p.InForce = nil
	delete(l.inForce, p.ID)
	files := learned.Filesystem
	files.ReadOnly = l.removePaths(files.ReadOnly, old.ReadOnly, readOnly)
	files.ReadWrite = l.removePaths(files.ReadWrite, old.ReadWrite, readWrite)
	if len(files.ReadOnly)+len(files.ReadWrite) == 0 && !files.IncludeWorkdir {
		learned.Filesystem = nil
	}
}

func (l *ledger) removePaths(paths, gone []string, which func(*policy.Filesystem) []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		return slices.Contains(gone, p) && !l.held(p, which)
	})
}

// held reports whether the approval of a proposal stands behind a path.
func (l *ledger) held(p string, which func(*policy.Filesystem) []string) bool {
	for _, files := range l.inForce {
		if slices.Contains(which(files), p) {
			return true
		}
	}
	return false
}

func contains(list, all []string) bool {
	return !slices.ContainsFunc(all, func(s string) bool { return !slices.Contains(list, s) })
}

// difference is what changed between two learned policies. A learned policy says nothing about the
// working directory, which one without a section on files would.
func difference(before, after *policy.Policy) []string {
	b, a := before.Clone(), after.Clone()
	for _, p := range []*policy.Policy{b, a} {
		if p.Filesystem == nil {
			p.Filesystem = &policy.Filesystem{}
		}
	}
	return policy.Diff(b, a)
}
