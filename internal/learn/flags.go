// SPDX-License-Identifier: Apache-2.0

package learn

import "slices"

// Flags are what a program has to know of a proposal besides its rule.
type Flags struct {
	Truncated     bool `json:"truncated,omitempty"`     // some evidence was lost
	Widened       bool `json:"widened,omitempty"`       // a bound made the rule allow more than was seen
	Inexpressible bool `json:"inexpressible,omitempty"` // what no rule can name was left out
	Replaced      bool `json:"replaced,omitempty"`      // the program's content changed between denials
	// Sensitive: a directory is granted of which no part should be granted lightly.
	Sensitive bool `json:"sensitive,omitempty"`
	// PortVaries: the server seems to choose the port anew each time. It is for lists to say, see markVarying.
	PortVaries bool `json:"port_varies,omitempty"`
}

// noteFlags are the notes that were flags before there were any, word for word as they were then.
var noteFlags = []struct {
	note string
	set  func(*Flags)
}{
	{"Some evidence was lost because there was too much of it: the rule may not cover all that was used.",
		func(f *Flags) { f.Truncated = true }},
	{"There were too many different requests to list: the rule allows more than was seen.",
		func(f *Flags) { f.Widened = true }},
	{"Some requests cannot be written as a rule literally, and were left out: see the samples.",
		func(f *Flags) { f.Inexpressible = true }},
	{"The program's content has changed between denials.",
		func(f *Flags) { f.Replaced = true }},
}

// adoptNotes sets the flags of a proposal that was written by a program which knew none. Such a program
// may also have rewritten a newer one's, and kept nothing but the notes.
func (p *Proposal) adoptNotes() {
	for _, old := range noteFlags {
		if slices.Contains(p.SecurityNotes, old.note) {
			old.set(&p.Flags)
		}
	}
}

// CutShort reports whether the proposal does not tell all that was seen, or allows more because there was
// too much of it.
func (p *Proposal) CutShort() bool { return p.Flags.Truncated || p.Flags.Widened }

// Include is what may be approved without a look, besides proposals about which there is nothing to be said.
type Include struct{ Truncated, Sensitive, Varying bool }

// The reasons of Include.LeavesOut.
const (
	LeftTruncated = "too much was seen to tell it all"
	LeftSensitive = "what it grants whole is sensitive"
	LeftVarying   = "the server chooses the port anew each time"
)

// Reasons are those of LeavesOut, each with the name of the flag that includes such proposals.
func Reasons() []struct{ Reason, Flag string } {
	return []struct{ Reason, Flag string }{
		{LeftTruncated, "include-truncated"}, {LeftSensitive, "include-sensitive"}, {LeftVarying, "include-varying-ports"},
	}
}

// LeavesOut says why a proposal may not be approved without a look. It is empty for one that may.
func (i Include) LeavesOut(p *Proposal) string {
	switch {
	case p.CutShort() && !i.Truncated:
		return LeftTruncated
	case p.Flags.Sensitive && !i.Sensitive:
		return LeftSensitive
	case p.Flags.PortVaries && !i.Varying:
		return LeftVarying
	}
	return ""
}
