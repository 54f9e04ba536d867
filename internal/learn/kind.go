// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/policy"
)

// kind is what sets the proposals of one kind apart: what they are about, how their rule comes of evidence, and
// how it gets into a policy and out of it again. What a proposal of the kind proposes is a part of an Edit.
type kind interface {
	// target is what a proposal's denials are about.
	target(*Proposal) target
	// ruleName is readable; a proposal's id is added to it.
	ruleName(target) string
	// restore gives evidence what the proposal has of it that only this kind has.
	restore(*Proposal, *Evidence)
	// build makes what the proposal proposes, and all that is said of it, from evidence. The error is for
	// evidence that no valid rule can be made of.
	build(*Proposal, *Evidence) error
	// check reports what makes a proposal unfit to be used.
	check(*Proposal) error

	// section is what a policy calls what the proposal proposes.
	section(*Proposal) string
	// checkEdit reports why an edit cannot stand for the proposal, whatever it allows.
	checkEdit(*Proposal, Edit) error
	digest(Edit) string

	// add puts an edit in force in the learned policy, and remove takes what was added out of it again.
	add(*ledger, *policy.Policy, *Proposal, Edit)
	remove(*ledger, *policy.Policy, *Proposal)
	// inForce reports whether the learned policy has what was approved of the proposal.
	inForce(*Proposal, *policy.Policy) bool
	// related reports whether one proposal's approval can make another of the kind superfluous, and covered
	// whether the other rules of the learned policy are known to allow all that the proposal does.
	related(a, b *Proposal) bool
	covered(*Proposal, *policy.Policy) bool

	summary(*Proposal) Summary
}

// The kinds of a proposal: for a network rule, and for paths of the filesystem.
const (
	KindNetwork    = "network"
	KindFilesystem = "filesystem"
)

var kinds = map[string]kind{
	KindNetwork:    networkKind{},
	KindFilesystem: filesystemKind{},
}

// kind is the proposal's. A proposal that was checked has one.
func (p *Proposal) kind() kind { return kinds[p.Kind] }

func (p *Proposal) checkKind() error {
	if p.kind() == nil {
		return fmt.Errorf("proposal %s: kind %q: is not known to this openshell, which knows %s",
			p.ID, p.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), " and "))
	}
	return nil
}

// Summary is a proposal in a few words, not yet fit to show.
type Summary struct {
	Destinations []string // hosts and ports, each once, or the tree of the files
	Allows       []string // what is allowed there
	Subject      string   // in a sentence; empty: its programs, destinations and what they are allowed say it
}

// Summary puts the proposal into a few words.
func (p *Proposal) Summary() Summary {
	if p.kind() == nil {
		return Summary{}
	}
	return p.kind().summary(p)
}
