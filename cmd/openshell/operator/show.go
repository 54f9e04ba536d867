package operator

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/config"
	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/sandbox"
)

func showCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID [--json]",
		Short: "Show all there is to know about a proposal before it is decided on",
		Long: "Show a proposal: the rule, why it is proposed, what speaks against it, the evidence, the\n" +
			"runs, and what its approval would change. The ID may be cut short as long as it is unique.",
		Example: "  openshell show p-3f9a1c2b",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			known, err := allIDs(store)
			if err != nil {
				return err
			}
			id, err := matchID(known, given[0])
			if err != nil {
				return fmt.Errorf("%w: see openshell proposals", err)
			}
			p, err := learn.Get(store, id)
			if err != nil {
				return err
			}
			difference, err := approvalDiff(c, &p)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), struct {
					learn.Proposal
					Difference []string `json:"difference"`
				}{p, difference})
			}
			others, err := learn.List(store, p.Policy)
			if err != nil {
				return err
			}
			runs, err := learn.Runs(store, p.Policy)
			if err != nil {
				return err
			}
			return writeProposal(cmd.OutOrStdout(), &p, around{runs: runs, suggestion: learn.Suggestions(others)[p.ID], difference: difference})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the proposal as JSON, with what its approval would change as difference")
	return cmd
}

// approvalDiff is what the effective policy would allow more, or less, if the proposal
// were approved now. It is never nil.
func approvalDiff(c *config.Config, p *learn.Proposal) ([]string, error) {
	now, err := sandbox.LoadPolicies(c, p.Policy)
	if err != nil {
		return nil, err
	}
	learned := now.Learned.Clone()
	p.AddTo(learned)
	difference := policy.Diff(now.Effective, policy.Merge(now.Base, learned))
	return append([]string{}, difference...), nil
}

// around is what is known about a proposal from elsewhere.
type around struct {
	runs       []learn.RunRecord
	suggestion string   // a wider rule that somebody could write instead
	difference []string // what its approval would change
}

func writeProposal(w io.Writer, p *learn.Proposal, a around) error {
	rule, err := ruleYAML(p)
	if err != nil {
		return err
	}
	writeSummary(w, p, a.runs)
	if len(p.SecurityNotes) > 0 {
		fmt.Fprintln(w, "\nNotes:")
		for _, note := range p.SecurityNotes {
			fmt.Fprintf(w, "  ! %s\n", plain(note))
		}
	}
	if a.suggestion != "" {
		fmt.Fprintf(w, "\nSuggestion: %s\n", plain(a.suggestion))
	}
	fmt.Fprintf(w, "\nRule:\n%s", indent(rule))
	writeEvidence(w, &p.Evidence)
	writeGrants(w, p.FileGrants())
	if err := writeRuns(w, p.Provenance.Runs); err != nil {
		return err
	}
	switch {
	case p.Status == learn.StatusApproved:
		fmt.Fprintf(w, "\nTo take it back: openshell undo %s %s\n", p.Policy, p.ID)
	case len(a.difference) == 0:
		fmt.Fprintln(w, "\nApproval would change nothing: the effective policy allows all of it.")
	default:
		fmt.Fprintln(w, "\nApproval would change:")
		writeDiff(w, "  ", a.difference)
		fmt.Fprintf(w, "\nTo approve exactly this: openshell approve %s %s@%s\n", p.Policy, p.ID, p.Digest)
	}
	return nil
}

func writeSummary(w io.Writer, p *learn.Proposal, runs []learn.RunRecord) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s%s\n", name, paint(coloured(w), plain(value)))
		}
	}
	field("Proposal", p.ID)
	field("Status", p.Status)
	field("Policy", p.Policy)
	field("Rule name", p.RuleName)
	field("Binary", strings.Join(binaries(p), ", "))
	if p.Provenance.Mode == learn.ModeAgent {
		field("Asked by", p.Binary)
	}
	field("SHA-256", p.BinarySHA256)
	field("Started by", strings.Join(p.Ancestors, ", "))
	field("Endpoint", strings.Join(services(p), ", "))
	field("Tree", p.Evidence.Tree)
	field("Rationale", p.Rationale)
	field("Confidence", confidence(p))
	field("Learned in", p.Provenance.Mode+" mode")
	field("Seen in", seenIn(p, runs)+" runs")
	field("Base policy", p.Provenance.BasePolicySHA256)
	field("TTL", p.Provenance.TTL)
	field("Digest", p.Digest)
	if p.DecidedAt != nil {
		field("Decided", timestamp(*p.DecidedAt)+" by "+cmp.Or(p.DecidedBy, "unknown"))
	}
	field("Rejected", p.RejectionReason)
	field("Superseded", p.SupersededBy)
}

func writeEvidence(w io.Writer, e *learn.ProposalEvidence) {
	fmt.Fprintf(w, "\nEvidence: %s", count(e.Hits, "denial", "denials"))
	if e.TLS != "" {
		fmt.Fprintf(w, ", TLS %s", plain(e.TLS))
	}
	if len(e.ResolvedIPs) > 0 {
		fmt.Fprintf(w, ", resolved to %s", plain(strings.Join(e.ResolvedIPs, ", ")))
	}
	fmt.Fprintln(w)
	byCount := func(a, b string) int { return cmp.Or(cmp.Compare(e.Reasons[b], e.Reasons[a]), cmp.Compare(a, b)) }
	for _, reason := range slices.SortedFunc(maps.Keys(e.Reasons), byCount) {
		fmt.Fprintf(w, "%6d  %s\n", e.Reasons[reason], plain(reason))
	}
	if len(e.Samples) == 0 {
		return
	}
	fmt.Fprintln(w, "\nRequests (samples):")
	for _, s := range e.Samples {
		fmt.Fprintf(w, "%6d  %s", s.Count, plain(s.Method+" "+s.Path))
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
		fmt.Fprintf(w, "  %-6s%s\n", mode, plain(g.Path))
		if g.Why == "" {
			continue
		}
		fmt.Fprintf(w, "        %s: %s\n", plain(g.Why), plain(strings.Join(g.Observed, ", ")))
	}
}

func writeRuns(w io.Writer, runs []learn.RunEvidence) error {
	if len(runs) == 0 {
		return nil
	}
	rows := [][]string{{"RUN", "SANDBOX", "IMAGE", "HITS", "FIRST SEEN", "LAST SEEN"}}
	for _, r := range runs {
		rows = append(rows, []string{shortID(plain(r.Run)), shortID(plain(r.Sandbox)), keepEnd(plain(cmp.Or(r.Image, "-")), maxEndpointColumn),
			strconv.Itoa(r.Hits), timestamp(r.FirstSeen), timestamp(r.LastSeen)})
	}
	fmt.Fprintln(w)
	return writeTable(w, rows)
}

// ruleYAML is the proposal's rule as it would stand in a policy.
func ruleYAML(p *learn.Proposal) (string, error) {
	alone := &policy.Policy{Version: 1, Filesystem: p.Filesystem}
	if p.Rule != nil {
		alone.Network = map[string]*policy.Rule{p.RuleName: p.Rule}
	}
	data, err := policy.Marshal(alone)
	if err != nil {
		return "", fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	_, rule, _ := strings.Cut(string(data), "\n") // version
	return rule, nil
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
