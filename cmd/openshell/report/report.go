// SPDX-License-Identifier: Apache-2.0

// Package report owns the report on a policy: one self-contained HTML page that tells what the workloads of
// the policy were seen to do, what they may do, and who decided so, for people who have
// no access to the node.
//
// It owns how that looks, and reads and changes no state. The page needs no network and no scripts, and
// is bounded: what is left out is counted. The same data makes the same page.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

// Data is what a report is made from.
type Data struct {
	Policy    string
	Base      *policy.Policy
	Origin    string         // where the base comes from
	Learned   *policy.Policy // what was approved
	Effective *policy.Policy
	Proposals []learn.Proposal
	Runs      []learn.RunRecord
	// Running are the sandboxes of the policy that run now.
	Running []Sandbox
	// Now is when the report is made.
	Now time.Time
}

// Sandbox is one that runs.
type Sandbox struct {
	ID         string
	Permissive bool
	Deadline   time.Time // of the permissive mode; zero: none
}

// Bounds of what is listed in the page, each of them for one list.
const (
	maxPrograms  = 200
	maxHosts     = 200  // of a program
	maxRequests  = 100  // of a host
	maxMap       = 5000 // requests altogether
	maxFiles     = 2000
	maxEvents    = 500
	maxProposals = 500
	maxRunRows   = 200
)

//go:embed report.html
var source string

var page = template.Must(template.New("report").Parse(source))

// Write writes the page.
func Write(w io.Writer, d *Data) error {
	if err := page.Execute(w, d.view()); err != nil {
		return fmt.Errorf("report on policy %s: %w", d.Policy, err)
	}
	return nil
}

// view is the page's content, in the order in which it is shown. All text in it is fit to show; that
// it is no HTML is the template's business.
type view struct {
	Policy, Now, Origin string
	Counts              []figure
	Permissive          []string // warnings
	Map                 []program
	MapMore             int
	Files               []*node
	FilesMore           int
	Workdir             bool // is granted
	Events              []event
	EventsMore          int
	Runs                []runRow
	RunsMore            int
	Proposals           []proposalRow
	ProposalsMore       int
	Unproposed          []unproposed
	YAML                string
}

type figure struct {
	Number int
	What   string
}

func (d *Data) view() view {
	v := view{Policy: describe.Plain(d.Policy), Now: describe.Timestamp(d.Now), Origin: describe.Plain(d.Origin)}
	v.Counts = d.counts()
	v.Permissive = d.permissive()
	v.Map, v.MapMore = d.programs()
	v.Files, v.FilesMore = d.files()
	v.Workdir = d.Effective.FilesystemRules().IncludeWorkdir
	v.Events, v.EventsMore = latest(d.events(), maxEvents)
	v.Runs, v.RunsMore = d.runRows()
	v.Proposals, v.ProposalsMore = d.proposalRows()
	for _, n := range learn.NotesOf(d.Runs) {
		u := unproposed{Count: n.Count, Why: n.Kind.Explain()}
		for _, s := range n.Samples {
			u.Samples = append(u.Samples, describe.Plain(s))
		}
		v.Unproposed = append(v.Unproposed, u)
	}
	if text, err := policy.Marshal(d.Effective); err == nil {
		v.YAML = cut(string(text), maxYAML)
	} else {
		v.YAML = "# " + describe.Plain(err.Error())
	}
	return v
}

func (d *Data) counts() []figure {
	var figures []figure
	for _, status := range describe.Statuses {
		n := 0
		for i := range d.Proposals {
			if d.Proposals[i].Status == status {
				n++
			}
		}
		figures = append(figures, figure{n, status})
	}
	denials := 0
	for i := range d.Runs {
		denials += d.Runs[i].Denials
	}
	return append(figures, figure{len(d.Runs), "permissive runs"}, figure{denials, "denials that were let through"},
		figure{len(d.Running), "sandboxes running"})
}

// permissive says where the policy was, or is, not enforced.
func (d *Data) permissive() []string {
	var said []string
	for _, s := range d.Running {
		if s.Permissive {
			text := fmt.Sprintf("Sandbox %s runs permissively: what the policy denies is logged and allowed",
				describe.Plain(s.ID))
			if !s.Deadline.IsZero() {
				text += ", until " + describe.Timestamp(s.Deadline)
			}
			said = append(said, text+".")
		}
	}
	images := map[string]int{}
	lost := 0
	for i := range d.Runs {
		images[d.Runs[i].Image]++
		lost += d.Runs[i].Lost
	}
	if n := len(d.Runs); n > 0 {
		said = append(said, fmt.Sprintf("%s on record, of %s, from %s to %s: the policy was not enforced in %s.",
			describe.Count(n, "permissive run is", "permissive runs are"), describe.Count(len(images), "image", "images"),
			describe.Timestamp(d.Runs[0].Started), describe.Timestamp(d.Runs[n-1].Started), map[bool]string{true: "it",
				false: "them"}[n == 1]))
	}
	if lost > 0 {
		said = append(said, fmt.Sprintf("%s had no room in any proposal: the report does not tell all that was seen.",
			describe.Count(lost, "denial", "denials")))
	}
	return said
}

// unproposed is what was tried and is no proposal.
type unproposed struct {
	Count   int
	Why     string
	Samples []string
}

type runRow struct {
	Run, Sandbox, Image, Mode, TTL, Started, Ended string
	Denials, Proposals, Unproposed, Lost           int
}

// runRows are the runs, the latest first.
func (d *Data) runRows() ([]runRow, int) {
	var rows []runRow
	for i := len(d.Runs) - 1; i >= 0 && len(rows) < maxRunRows; i-- {
		r := &d.Runs[i]
		row := runRow{describe.Plain(r.Run), describe.Plain(r.Sandbox), describe.Plain(r.Image), describe.Plain(r.Mode),
			describe.Plain(r.TTL),
			describe.Timestamp(r.Started), "not on record", r.Denials, r.Proposals, r.Unproposed, r.Lost}
		if r.Ended != nil {
			row.Ended = describe.Timestamp(*r.Ended)
		}
		rows = append(rows, row)
	}
	return rows, len(d.Runs) - len(rows)
}

type proposalRow struct {
	ID, Status, Subject, Confidence, Seen, Mode string
	Hits                                        int
	Rationale, Decision                         string
	Notes                                       []string
	Suggestion                                  string
	Details                                     string // evidence, rule and runs, as openshell show tells them
}

func (d *Data) proposalRows() ([]proposalRow, int) {
	var rows []proposalRow
	suggestions := learn.Suggestions(d.Proposals)
	room := maxAllDetails
	for i := range d.Proposals[:min(len(d.Proposals), maxProposals)] {
		p := &d.Proposals[i]
		row := proposalRow{ID: p.ID, Status: describe.Plain(p.Status), Subject: describe.Subject(p),
			Confidence: describe.Confidence(p),
			Seen:       describe.SeenIn(p, d.Runs), Mode: describe.Plain(p.Provenance.Mode), Hits: p.Evidence.Hits,
			Rationale: describe.Plain(p.Rationale), Decision: decision(p),
			Suggestion: describe.Plain(suggestions[p.ID])}
		for _, note := range p.SecurityNotes {
			row.Notes = append(row.Notes, describe.Plain(note))
		}
		var b strings.Builder
		describe.WriteEvidence(&b, p)
		err := describe.WriteRule(&b, p)
		if err == nil {
			err = describe.WriteRuns(&b, p.Provenance.Runs)
		}
		if err != nil {
			fmt.Fprintf(&b, "\n%s\n", describe.Plain(err.Error()))
		}
		row.Details = cut(strings.TrimSpace(b.String()), min(maxDetails, room))
		room -= len(row.Details)
		rows = append(rows, row)
	}
	return rows, len(d.Proposals) - len(rows)
}

// How much text there may be, in bytes.
const (
	maxDetails    = 32 << 10 // of one proposal
	maxAllDetails = 4 << 20
	maxYAML       = 512 << 10
)

// cut keeps the first lines of a text.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := max(strings.LastIndexByte(text[:max(limit, 0)], '\n'), 0)
	return fmt.Sprintf("%s\n… %d more bytes: see openshell show and openshell policy show", text[:end], len(text)-end)
}

// decision says what was decided on a proposal, by whom and why.
func decision(p *learn.Proposal) string {
	if p.DecidedAt == nil {
		return ""
	}
	what := p.Status
	switch {
	case p.Status == learn.StatusPending:
		what = "taken back"
	case p.Status == learn.StatusApproved && p.Tightened != nil:
		what = "approved in part"
	}
	text := fmt.Sprintf("%s %s by %s", what, describe.Timestamp(*p.DecidedAt), p.DecidedBy)
	if p.RejectionReason != "" && p.Status == learn.StatusRejected {
		text += ": " + p.RejectionReason
	}
	return describe.Plain(text)
}

// event is something that happened.
type event struct {
	at         time.Time
	Time, What string
	Kind       string // run, or a proposal's status
}

// events are the runs and the decisions, in order of time.
func (d *Data) events() []event {
	var events []event
	add := func(at time.Time, kind, format string, args ...any) {
		events = append(events, event{at, describe.Timestamp(at), describe.Plain(fmt.Sprintf(format, args...)),
			describe.Plain(kind)})
	}
	for i := range d.Runs {
		r := &d.Runs[i]
		add(r.Started, "run", "permissive run %s of %s begins (TTL %s)", r.Run, r.Image, r.TTL)
		if r.Ended != nil {
			add(*r.Ended, "run", "permissive run %s ends: %s, evidence for %s", r.Run,
				describe.Count(r.Denials, "denial", "denials"), describe.Count(r.Proposals, "proposal", "proposals"))
		}
	}
	for i := range d.Proposals {
		p := &d.Proposals[i]
		if first, ok := firstSeen(p); ok {
			add(first, "seen", "%s is seen first: %s", p.ID, describe.Subject(p))
		}
		if p.DecidedAt != nil {
			add(*p.DecidedAt, p.Status, "%s is %s (%s)", p.ID, decision(p), describe.Subject(p))
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	return events
}

func firstSeen(p *learn.Proposal) (first time.Time, ok bool) {
	for i := range p.Provenance.Runs {
		if at := p.Provenance.Runs[i].FirstSeen; !ok || at.Before(first) {
			first, ok = at, true
		}
	}
	return first, ok
}

// latest keeps the end of a list.
func latest[T any](list []T, limit int) (kept []T, more int) {
	more = max(len(list)-limit, 0)
	return list[more:], more
}
