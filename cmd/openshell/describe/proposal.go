// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"fmt"
	"slices"
	"strconv"

	"openshell.ai/openshell/internal/learn"
)

// maxWhat is how long the first of what a proposal allows may get in one cell, in characters.
const maxWhat = 20

// Statuses are in the order in which proposals are listed.
var Statuses = []string{learn.StatusPending, learn.StatusApproved, learn.StatusRejected, learn.StatusSuperseded}

// SeenIn says in how many of the runs a proposal was seen.
func SeenIn(p *learn.Proposal, runs []learn.RunRecord) string {
	seen, of := p.SeenIn(runs)
	return fmt.Sprintf("%d of %d", seen, of)
}

// Endpoint is the destination of a proposal, and how many others it has, or the tree of its files.
func Endpoint(p *learn.Proposal) string {
	return firstOf(p.Summary().Destinations, 0)
}

// Binaries are the programs that a proposal is for, each once.
func Binaries(p *learn.Proposal) []string {
	var list []string
	add := func(path string) {
		if path = Plain(path); path != "" && !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	if p.Rule != nil {
		for _, b := range p.Rule.Binaries {
			add(b.Path)
		}
	}
	for i := range p.Evidence.Files {
		for _, b := range p.Evidence.Files[i].Binaries {
			add(b)
		}
	}
	return list
}

// Programs is the first of the programs, and how many others there are.
func Programs(p *learn.Proposal) string { return firstOf(Binaries(p), 0) }

// firstOf is the first of a list and how many follow, in width characters where that is not 0.
func firstOf(list []string, width int) string {
	if len(list) == 0 {
		return "-"
	}
	first, more := Plain(list[0]), ""
	if n := len(list) - 1; n > 0 {
		more = fmt.Sprintf(" +%d", n)
	}
	if width > 0 {
		first = KeepStart(first, width-len(more))
	}
	return first + more
}

// What says how much a proposal allows, in one cell.
func What(p *learn.Proposal) string { return firstOf(p.Summary().Allows, maxWhat) }

// Confidence is how plausible the proposal is, 0 to 1.
func Confidence(p *learn.Proposal) string { return strconv.FormatFloat(p.Confidence, 'f', 2, 64) }

// Subject is a proposal in a few words.
func Subject(p *learn.Proposal) string {
	if subject := p.Summary().Subject; subject != "" {
		return Plain(subject)
	}
	return Programs(p) + " to " + Endpoint(p) + ", " + What(p)
}
