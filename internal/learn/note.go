// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"openshell.ai/openshell/internal/audit"
)

// NoteKind is why something that a workload tried is no proposal.
type NoteKind string

// The kinds of notes.
const (
	NoteAddress   NoteKind = "address"   // the guard on addresses refuses it, whatever a policy says
	NoteDial      NoteKind = "dial"      // the name could not be looked up, or the destination not be reached
	NoteMalformed NoteKind = "malformed" // not a request that may be forwarded
	NoteIdentity  NoteKind = "identity"  // it is not known which program it was
	NoteTLS       NoteKind = "tls"       // the server's certificate, or the name that the client asked for
	NoteForbidden NoteKind = "forbidden" // a deny rule, the node's maximum, or what is never allowed
	NoteUnnamed   NoteKind = "unnamed"   // no rule can name it and nothing else
	NoteOther     NoteKind = "other"
)

var noteKinds = []NoteKind{NoteAddress, NoteDial, NoteMalformed, NoteIdentity, NoteTLS, NoteForbidden, NoteUnnamed,
	NoteOther}

// Note is one thing that a workload tried and that no proposal is made of.
type Note struct {
	Kind   NoteKind
	Host   string // or a path
	Port   uint16 // 0: none
	Binary string
	Reason string
}

// NoteCount says how often there was a note of a kind, with some of them.
type NoteCount struct {
	Kind    NoteKind `json:"kind"`
	Count   int      `json:"count"`
	Samples []string `json:"samples"` // some of them, fit to show
}

// Bounds of the samples.
const (
	maxNoteSamples = 8
	maxNoteText    = 256
)

// noteCounts are the notes of a run.
type noteCounts map[NoteKind]*NoteCount

// add counts a note. Of the samples the smallest are kept, so that the order does not matter.
func (c noteCounts) add(n Note) {
	kind := n.Kind
	if !slices.Contains(noteKinds, kind) {
		kind = NoteOther
	}
	count, ok := c[kind]
	if !ok {
		count = &NoteCount{Kind: kind}
		c[kind] = count
	}
	count.Count++
	count.Samples = union(count.Samples, []string{n.text()}, maxNoteSamples)
}

func (n Note) text() string {
	what := n.Host
	if n.Port != 0 {
		what = net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port)))
	}
	text := fmt.Sprintf("%s: %s", what, cmp.Or(n.Reason, string(n.Kind)))
	if n.Binary != "" {
		text = n.Binary + " to " + text
	}
	return audit.Escape(Mask(text), maxNoteText)
}

func (c noteCounts) list() []NoteCount {
	var list []NoteCount
	for _, kind := range slices.Sorted(maps.Keys(c)) {
		list = append(list, *c[kind])
	}
	return list
}

// Note counts what a workload tried and what is no evidence for a rule. It does not wait for a disk,
// and its memory is bounded.
func (l *Learner) Note(n Note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.notes.add(n)
	if l.permissive() {
		l.signal()
	}
}

// noteOf says why there is no proposal for a denial.
func noteOf(d Denial) Note {
	n := Note{Kind: NoteUnnamed, Host: d.Host, Port: d.Port, Binary: d.Binary, Reason: reasonFor(d)}
	if d.L7 != "" && len(d.Missing) == 0 {
		n.Kind = NoteForbidden
	}
	return n
}

// noteOfEvidence says why no rule can be made from evidence.
func noteOfEvidence(e *Evidence) Note {
	n := Note{Kind: NoteUnnamed, Host: e.target.host, Port: e.target.port, Binary: e.target.binary,
		Reason: "no rule can name what was sent"}
	if e.files == nil && !dialable(e.target) {
		n.Kind, n.Reason = NoteAddress, "is never reachable, whatever a policy says"
	}
	if e.files != nil {
		n.Host = e.target.tree
	}
	return n
}

// NotesOf adds up the notes of runs.
func NotesOf(runs []RunRecord) []NoteCount {
	all := noteCounts{}
	for i := range runs {
		for _, n := range runs[i].Notes {
			sum, ok := all[n.Kind]
			if !ok {
				sum = &NoteCount{Kind: n.Kind}
				all[n.Kind] = sum
			}
			sum.Count += n.Count
			sum.Samples = union(sum.Samples, n.Samples, maxNoteSamples)
		}
	}
	return all.list()
}

// Explain is the kind in a sentence.
func (k NoteKind) Explain() string {
	switch k {
	case NoteAddress:
		return "to addresses that are never reachable, or private ones that no policy opens"
	case NoteDial:
		return "to names that could not be looked up, or destinations that could not be reached"
	case NoteMalformed:
		return "malformed requests"
	case NoteIdentity:
		return "by programs that could not be identified"
	case NoteTLS:
		return "with TLS whose certificate or server name is not the destination's"
	case NoteForbidden:
		return "denied by a deny rule or the node, which no proposal overrides"
	case NoteUnnamed:
		return "that no rule can name literally, and nothing else"
	default:
		return "for other reasons"
	}
}
