// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

// WriteSummary writes what a proposal is and what became of it, a field a line.
func WriteSummary(w io.Writer, p *learn.Proposal, runs []learn.RunRecord) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s%s\n", name, Paint(Coloured(w), Plain(value)))
		}
	}
	field("Proposal", p.ID)
	field("Status", p.Status)
	field("Policy", p.Policy)
	field("Rule name", p.RuleName)
	field("Binary", strings.Join(Binaries(p), ", "))
	if p.Provenance.Mode == learn.ModeAgent {
		field("Asked by", p.Binary)
	}
	field("SHA-256", p.BinarySHA256)
	field("Started by", strings.Join(p.Ancestors, ", "))
	field("Endpoint", Plain(strings.Join(p.Services(), ", ")))
	field("Tree", p.Evidence.Tree)
	field("Rationale", p.Rationale)
	field("Confidence", Confidence(p))
	field("Learned in", p.Provenance.Mode+" mode")
	field("Seen in", SeenIn(p, runs)+" runs")
	field("Base policy", p.Provenance.BasePolicySHA256)
	field("TTL", p.Provenance.TTL)
	field("Digest", p.Digest)
	if p.DecidedAt != nil {
		field("Decided", Timestamp(*p.DecidedAt)+" by "+cmp.Or(p.DecidedBy, "unknown"))
	}
	field("Rejected", p.RejectionReason)
	field("Superseded", p.SupersededBy)
}

// WriteNotes writes what speaks against a proposal, and, unless it is empty, what somebody could write
// instead of it.
func WriteNotes(w io.Writer, p *learn.Proposal, suggestion string) {
	if len(p.SecurityNotes) > 0 {
		fmt.Fprintln(w, "\nNotes:")
		for _, note := range p.SecurityNotes {
			fmt.Fprintf(w, "  ! %s\n", Plain(note))
		}
	}
	if suggestion != "" {
		fmt.Fprintf(w, "\nSuggestion: %s\n", Plain(suggestion))
	}
}

// WriteRule writes what a proposal proposes, and what is in force of it where that is less.
func WriteRule(w io.Writer, p *learn.Proposal) error {
	rule, err := RuleYAML(p, p.Rule, p.Filesystem)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nRule:\n%s", Indent(rule))
	if p.Tightened == nil {
		return nil
	}
	if rule, err = RuleYAML(p, p.Tightened.Rule, p.Tightened.Filesystem); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nIn force, as it was tightened:\n%s", Indent(rule))
	return err
}

// WriteDifference writes what an approval would change.
func WriteDifference(w io.Writer, difference []string) {
	if len(difference) == 0 {
		fmt.Fprintln(w, "\nApproval would change nothing: the effective policy allows all of it.")
		return
	}
	fmt.Fprintln(w, "\nApproval would change:")
	WriteDiff(w, "  ", difference)
}

// WriteUnproposed says what was tried in runs and is no proposal, and of which policy where that is said.
func WriteUnproposed(w io.Writer, of string, runs []learn.RunRecord) {
	notes := learn.NotesOf(runs)
	if len(notes) == 0 {
		return
	}
	fmt.Fprintf(w, "\nNot proposed%s, in %s:\n", of, Count(len(runs), "run", "runs"))
	for _, n := range notes {
		fmt.Fprintf(w, "%6d  %s\n", n.Count, n.Kind.Explain())
		for _, s := range n.Samples {
			fmt.Fprintf(w, "        %s\n", Plain(s))
		}
	}
}

// WriteEvidence writes what was seen: why it was denied, the requests, or the files.
func WriteEvidence(w io.Writer, p *learn.Proposal) {
	e := &p.Evidence
	defer writeGrants(w, p.FileGrants())
	fmt.Fprintf(w, "\nEvidence: %s", Count(e.Hits, "denial", "denials"))
	if e.TLS != "" {
		fmt.Fprintf(w, ", TLS %s", Plain(e.TLS))
	}
	if len(e.ResolvedIPs) > 0 {
		fmt.Fprintf(w, ", resolved to %s", Plain(strings.Join(e.ResolvedIPs, ", ")))
	}
	fmt.Fprintln(w)
	byCount := func(a, b string) int { return cmp.Or(cmp.Compare(e.Reasons[b], e.Reasons[a]), cmp.Compare(a, b)) }
	for _, reason := range slices.SortedFunc(maps.Keys(e.Reasons), byCount) {
		fmt.Fprintf(w, "%6d  %s\n", e.Reasons[reason], Plain(reason))
	}
	if len(e.Samples) == 0 {
		return
	}
	fmt.Fprintln(w, "\nRequests (samples):")
	for _, s := range e.Samples {
		fmt.Fprintf(w, "%6d  %s", s.Count, Plain(s.Method+" "+s.Path))
		if s.Status != 0 {
			fmt.Fprintf(w, " (answered %d)", s.Status)
		}
		fmt.Fprintln(w)
	}
}

// writeGrants shows the paths that are proposed beside what was accessed.
func writeGrants(w io.Writer, grants []learn.FileGrant) {
	if len(grants) == 0 {
		return
	}
	fmt.Fprintln(w, "\nGranted, and accessed (samples):")
	for _, g := range grants {
		mode := "read"
		if g.Write {
			mode = "write"
		}
		fmt.Fprintf(w, "  %-6s%s\n", mode, Plain(g.Path))
		if g.Reason == "" {
			continue
		}
		fmt.Fprintf(w, "        %s: %s\n", Plain(g.Reason.Explain()), Plain(strings.Join(g.Observed, ", ")))
	}
}

// maxImage is how wide the column of images may get, in characters.
const maxImage = 28

// WriteRuns writes the runs in which a proposal was seen, as a table.
func WriteRuns(w io.Writer, runs []learn.RunEvidence) error {
	if len(runs) == 0 {
		return nil
	}
	rows := [][]string{{"RUN", "SANDBOX", "IMAGE", "HITS", "FIRST SEEN", "LAST SEEN"}}
	for _, r := range runs {
		rows = append(rows, []string{ShortID(Plain(r.Run)), ShortID(Plain(r.Sandbox)),
			KeepEnd(Plain(cmp.Or(r.Image, "-")), maxImage),
			strconv.Itoa(r.Hits), Timestamp(r.FirstSeen), Timestamp(r.LastSeen)})
	}
	fmt.Fprintln(w)
	return WriteTable(w, rows)
}

// RuleYAML is a rule of a proposal, or its paths, as it would stand in a policy.
func RuleYAML(p *learn.Proposal, rule *policy.Rule, files *policy.Filesystem) (string, error) {
	alone := &policy.Policy{Version: 1, Filesystem: files}
	if rule != nil {
		alone.Network = map[string]*policy.Rule{p.RuleName: rule}
	}
	data, err := policy.Marshal(alone)
	if err != nil {
		return "", fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	_, text, _ := strings.Cut(string(data), "\n") // version
	return text, nil                              // what validates has no invisible characters
}

// Indent puts two spaces before each line.
func Indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// Timestamp is a time in UTC, to the second (RFC 3339).
func Timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Count is a number and what it is of.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// shortLength is how engines cut their ids, in characters.
const shortLength = 12

// ShortID cuts the long ids that engines draw at random, which their beginning tells apart. Names
// that people gave stay whole.
func ShortID(id string) string {
	random := len(id) >= 32 && strings.Trim(id, "0123456789abcdef") == ""
	if !random {
		return id
	}
	return id[:shortLength]
}
