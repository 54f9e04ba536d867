// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/decide"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
)

func approveCommand() *cobra.Command {
	var all bool
	var include learn.Include
	var by, edit string
	cmd := &cobra.Command{
		Use:   "approve POLICY ID... | POLICY ID --edit FILE | POLICY --all [--include-truncated] [--include-sensitive] [--include-varying-ports]",
		Short: "Allow what proposals propose, also in the sandboxes that run",
		Long: "Add the rules of proposals to a policy, exactly as shown and each under its own key, and print\n" +
			"the difference. An ID may be cut short as long as it is unique. ID@DIGEST, as openshell show\n" +
			"prints it, approves only the rule that was looked at, should the proposal have grown since.\n" +
			"Proposals that are named are approved all or none. --all approves what it can: it leaves out, and\n" +
			"fails for, what exceeds the node's maximum policy, and proposals that do not tell all that was seen,\n" +
			"or allow more than that because there was too much of it, unless --include-truncated is given too, and those\n" +
			"that grant a sensitive directory whole, such as /etc, unless --include-sensitive is, or are for a port that\n" +
			"the server chooses anew each time, as FTP's do, unless --include-varying-ports is.\n" +
			"--edit approves less than what is proposed: the rule in FILE, a policy with nothing else in it,\n" +
			"in place of the proposal's and under its key.",
		Example: "  openshell approve agent p-3f9a1c2b\n" +
			"  openshell show p-3f9a1c2b --rule > narrower.yaml  # and take out what is not wanted\n" +
			"  openshell approve agent p-3f9a1c2b --edit narrower.yaml\n" +
			"  openshell approve agent --all",
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name, ids := given[0], given[1:]
			if edit != "" && (all || len(ids) != 1) {
				return errors.New("--edit goes with one proposal: " + usage(cmd))
			}
			if include != (learn.Include{}) && !all {
				return errors.New("--include-truncated and the like go with --all: " + usage(cmd))
			}
			if all == (len(ids) > 0) {
				return errors.New("name the proposals, or use --all for all that are pending: " + usage(cmd))
			}
			r, err := reviewer(cmd, by)
			if err != nil {
				return err
			}
			if edit != "" {
				return approveEdited(cmd, r, name, ids, edit)
			}
			if all {
				return approveAll(cmd, r, name, include)
			}
			if ids, err = r.Match(name, ids); err != nil {
				return err
			}
			c, err := r.Approve(cmd.Context(), name, ids)
			writeApproval(cmd.OutOrStdout(), c, err)
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "approve all that are pending")
	includeFlags(cmd, &include, "with --all: ")
	cmd.Flags().StringVar(&edit, "edit", "", "the `FILE` with what to approve of the proposal, or - for standard input")
	byFlag(cmd, &by)
	return cmd
}

// includeFlags are for what is left out unless somebody has looked at it.
func includeFlags(cmd *cobra.Command, include *learn.Include, when string) {
	cmd.Flags().BoolVar(&include.Truncated, "include-truncated", false, when+"also proposals that were cut short")
	cmd.Flags().BoolVar(&include.Sensitive, "include-sensitive", false,
		when+"also those that grant a sensitive directory whole")
	cmd.Flags().BoolVar(&include.Varying, "include-varying-ports", false,
		when+"also those for ports that the server chooses anew each time")
}

// approveAll approves what is pending.
func approveAll(cmd *cobra.Command, r *decide.Reviewer, name string, include learn.Include) error {
	if err := r.Settle(cmd.Context(), name); err != nil && !include.Truncated {
		return err
	}
	if _, err := named(r.Config, r.Store, name); err != nil {
		return err
	}
	c, err := r.ApproveAll(cmd.Context(), name, include)
	if c.Pending > 0 {
		writeApproval(cmd.OutOrStdout(), c, err)
		return err
	}
	if err == nil {
		fmt.Fprintf(cmd.OutOrStdout(), "nothing is pending for policy %s\n", name)
	}
	writeReloaded(cmd.OutOrStdout(), c.Reloaded)
	return err
}

// approveEdited approves what a file has of a proposal.
func approveEdited(cmd *cobra.Command, r *decide.Reviewer, name string, ids []string, file string) error {
	ids, err := r.Match(name, ids)
	if err != nil {
		return err
	}
	p, err := learn.Get(r.Store, decide.Bare(ids[0]))
	if err != nil {
		return err
	}
	data, err := readPolicy(cmd.InOrStdin(), file)
	if err != nil {
		return fmt.Errorf("--edit: %w", err)
	}
	edit, err := p.ParseEdit(data)
	if err != nil {
		return fmt.Errorf("--edit %s: %w", file, err)
	}
	c, err := r.ApproveEdited(cmd.Context(), name, ids[0], edit)
	writeApproval(cmd.OutOrStdout(), c, err)
	return err
}

// writeApproval says what an approval did.
func writeApproval(w io.Writer, c decide.Change, err error) {
	for i := range c.Approved {
		p := &c.Approved[i]
		how := "approved"
		if p.Tightened != nil {
			how = "approved in part"
		}
		fmt.Fprintf(w, "%s %s: %s\n", how, p.ID, subject(p))
		for _, note := range p.SecurityNotes { // --all may have been meant for others
			fmt.Fprintf(w, "  ! %s\n", plain(note))
		}
	}
	for i := range c.Superseded {
		p := &c.Superseded[i]
		fmt.Fprintf(w, "superseded %s: allowed by %s\n", p.ID, p.SupersededBy)
	}
	if err == nil && len(c.Approved) == 0 {
		fmt.Fprintln(w, "approved already")
	}
	writeChangeOf(w, c, err)
}

// writeChangeOf says what a decision made of the effective policy.
func writeChangeOf(w io.Writer, c decide.Change, err error) {
	if len(c.Difference) == 0 && err == nil {
		fmt.Fprintln(w, "the effective policy allows the same as before")
	}
	writeDiff(w, "", c.Difference)
	writeReloaded(w, c.Reloaded)
}

func writeReloaded(w io.Writer, ids []string) {
	if len(ids) > 0 {
		fmt.Fprintf(w, "reloaded in: %s\n", plain(strings.Join(ids, ", ")))
	}
}

func rejectCommand() *cobra.Command {
	var reason, by string
	cmd := &cobra.Command{
		Use:   "reject POLICY ID... --reason TEXT",
		Short: "Put proposals aside, until their rules change",
		Long: "Mark proposals as not wanted. They stay rejected in later runs unless their rules change.\n" +
			"What was approved has to be undone first.",
		Example: "  openshell reject agent p-3f9a1c2b --reason 'the agent has no business there'",
		Args:    args(2, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			if strings.TrimSpace(reason) == "" {
				return errors.New("say why: --reason TEXT")
			}
			r, err := reviewer(cmd, by)
			if err != nil {
				return err
			}
			ids, err := r.Match(name, given[1:])
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := r.Reject(name, id, reason); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "rejected %s\n", decide.Bare(id))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who review later (required)")
	byFlag(cmd, &by)
	return cmd
}

func undoCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "undo POLICY ID...",
		Short: "Take approved proposals back, also in the sandboxes that run",
		Long: "Remove exactly the rules of approved proposals from a policy, make the proposals pending again,\n" +
			"and print the difference. What is not approved is left as it is.",
		Example: "  openshell undo agent p-3f9a1c2b",
		Args:    args(2, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			r, err := reviewer(cmd, by)
			if err != nil {
				return err
			}
			ids, err := r.Match(name, given[1:])
			if err != nil {
				return err
			}
			c, err := r.Undo(cmd.Context(), name, ids)
			for _, id := range c.Undone {
				fmt.Fprintf(cmd.OutOrStdout(), "undone %s\n", id)
			}
			for _, id := range c.NotUndone {
				fmt.Fprintf(cmd.OutOrStdout(), "not approved: %s\n", id)
			}
			writeChangeOf(cmd.OutOrStdout(), c, err)
			return err
		},
	}
	byFlag(cmd, &by)
	return cmd
}

func byFlag(cmd *cobra.Command, by *string) {
	who := cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("USER"), fmt.Sprintf("uid %d", os.Getuid()))
	cmd.Flags().StringVar(by, "by", who, "`who` decides, for the record")
}

// reviewer decides for whoever runs the command.
func reviewer(cmd *cobra.Command, by string) (*decide.Reviewer, error) {
	c, store, err := load(cmd)
	if err != nil {
		return nil, err
	}
	return &decide.Reviewer{Config: c, Store: store, By: by}, nil
}

// allIDs are the proposals of all policies.
func allIDs(store *state.Store) ([]string, error) {
	names, err := store.Policies()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		ids, err := store.ProposalIDs(name)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}
