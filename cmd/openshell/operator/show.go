// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/decide"
	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
)

func showCommand() *cobra.Command {
	var asJSON, ruleOnly bool
	cmd := &cobra.Command{
		Use:   "show ID [--json | --rule]",
		Short: "Show all there is to know about a proposal before it is decided on",
		Long: "Show a proposal: the rule, why it is proposed, what speaks against it, the evidence, the\n" +
			"runs, and what its approval would change. The ID may be cut short as long as it is unique.",
		Example: "  openshell show p-3f9a1c2b",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			r, err := reviewer(cmd, "")
			if err != nil {
				return err
			}
			store := r.Store
			known, err := allIDs(store)
			if err != nil {
				return err
			}
			id, err := decide.MatchID(known, given[0])
			if err != nil {
				return fmt.Errorf("%w: see openshell proposals", err)
			}
			p, err := learn.Get(store, id)
			if err != nil {
				return err
			}
			if ruleOnly {
				text, err := p.Editable()
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			others, err := learn.List(store, p.Policy)
			if err != nil {
				return err
			}
			for i := range others {
				if others[i].ID == p.ID {
					p = others[i] // what the others say of it is noted there
				}
			}
			difference, err := r.Difference(&p, nil)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), struct {
					learn.Proposal
					Difference []string `json:"difference"`
				}{p, difference})
			}
			runs, err := learn.Runs(store, p.Policy)
			if err != nil {
				return err
			}
			return writeProposal(cmd.OutOrStdout(), &p,
				around{runs: runs, suggestion: learn.Suggestions(others)[p.ID], difference: difference})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false,
		"print the proposal as JSON, with what its approval would change as difference")
	cmd.Flags().BoolVar(&ruleOnly, "rule", false,
		"print only the rule, or what is in force of it tightened, for openshell approve --edit")
	cmd.MarkFlagsMutuallyExclusive("json", "rule")
	return cmd
}

// around is what is known about a proposal from elsewhere.
type around struct {
	runs       []learn.RunRecord
	suggestion string   // a wider rule that somebody could write instead
	difference []string // what its approval would change
}

func writeProposal(w io.Writer, p *learn.Proposal, a around) error {
	describe.WriteSummary(w, p, a.runs)
	describe.WriteNotes(w, p, a.suggestion)
	if err := describe.WriteRule(w, p); err != nil {
		return err
	}
	describe.WriteEvidence(w, p)
	if err := describe.WriteRuns(w, p.Provenance.Runs); err != nil {
		return err
	}
	if p.Status == learn.StatusApproved {
		_, err := fmt.Fprintf(w, "\nTo take it back: openshell undo %s %s\n", p.Policy, p.ID)
		return err
	}
	describe.WriteDifference(w, a.difference)
	if len(a.difference) > 0 {
		fmt.Fprintf(w, "\nTo approve exactly this: openshell approve %s %s@%s\n", p.Policy, p.ID, p.Digest)
	}
	return nil
}
