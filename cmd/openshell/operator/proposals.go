// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
)

const allStatuses = "all"

func proposalsCommand() *cobra.Command {
	var status string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "proposals [POLICY] [--status STATUS] [--json]",
		Short: "List what permissive and enforcing runs were denied, as rules to review",
		Long: "List the proposals of a policy, or of all policies: each is one rule that would make a set\n" +
			"of denials allowed. Pending ones come first, the most plausible ones before the others. What was\n" +
			"tried and cannot be allowed by any rule is counted below them.",
		Example: "  openshell proposals agent\n" +
			"  openshell proposals --status pending --json",
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			if status != allStatuses && !slices.Contains(describe.Statuses, status) {
				return fmt.Errorf("--status %q: must be one of %s, %s", status, strings.Join(describe.Statuses, ", "), allStatuses)
			}
			_, store, err := load(cmd)
			if err != nil {
				return err
			}
			found, err := listProposals(store, given)
			if err != nil {
				return err
			}
			shown := slices.DeleteFunc(slices.Clone(found), func(p learn.Proposal) bool {
				return status != allStatuses && p.Status != status
			})
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), shown)
			}
			runs, err := runsOf(store, given)
			if err != nil {
				return err
			}
			if len(shown) == 0 {
				err = writeNoProposals(cmd.OutOrStdout(), given, status, len(found))
			} else {
				err = writeTable(cmd.OutOrStdout(), proposalRows(shown, runs, len(given) == 0))
			}
			if err != nil {
				return err
			}
			return writeNotes(cmd.OutOrStdout(), runs, len(given) == 0)
		},
	}
	cmd.Flags().StringVar(&status, "status", allStatuses,
		"only those that are pending, approved, rejected, superseded, or all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of proposals")
	return cmd
}

// listProposals reads the proposals of the policies named, of all if none is. The list
// is never nil.
func listProposals(store *state.Store, names []string) ([]learn.Proposal, error) {
	if len(names) == 0 {
		var err error
		if names, err = store.Policies(); err != nil {
			return nil, err
		}
	}
	all := []learn.Proposal{}
	for _, name := range names {
		proposals, err := learn.List(store, name)
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(proposals, func(a, b learn.Proposal) int {
			return cmp.Compare(slices.Index(describe.Statuses, a.Status), slices.Index(describe.Statuses, b.Status))
		})
		all = append(all, proposals...)
	}
	return all, nil
}

func writeNoProposals(w io.Writer, names []string, status string, others int) error {
	name, of := "NAME", ""
	if len(names) > 0 {
		name, of = names[0], " for policy "+names[0]
	}
	if others > 0 {
		_, err := fmt.Fprintf(w, "No %s proposals%s; %d with another status: see --status all.\n", status, of, others)
		return err
	}
	_, err := fmt.Fprintf(w, "No proposals%s. To get some, run a container permissively:\n"+
		"  nerdctl run --runtime openshell --annotation openshell.ai/policy=%s --annotation openshell.ai/permissive=true IMAGE\n", of, name)
	return err
}

// How wide the columns of the table may get, in characters.
const (
	maxBinaryColumn   = 20
	maxEndpointColumn = 28
)

// runsOf reads the runs of the policies named, of all if none is.
func runsOf(store *state.Store, names []string) (map[string][]learn.RunRecord, error) {
	runs := map[string][]learn.RunRecord{}
	if len(names) == 0 {
		var err error
		if names, err = store.Policies(); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		var err error
		if runs[name], err = learn.Runs(store, name); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// writeNotes says what was tried and is no proposal.
func writeNotes(w io.Writer, runs map[string][]learn.RunRecord, withPolicy bool) error {
	for _, name := range slices.Sorted(maps.Keys(runs)) {
		of := ""
		if withPolicy {
			of = " for policy " + name
		}
		describe.WriteUnproposed(w, of, runs[name])
	}
	return nil
}

func proposalRows(proposals []learn.Proposal, runs map[string][]learn.RunRecord, withPolicy bool) [][]string {
	row := func(policyName string, cells ...string) []string {
		if !withPolicy {
			return cells
		}
		return append([]string{policyName}, cells...)
	}
	rows := [][]string{row("POLICY", "ID", "STATUS", "BINARY", "TARGET", "WHAT", "HITS", "CONFIDENCE", "MODE", "RUNS")}
	for i := range proposals {
		p := &proposals[i]
		status := plain(p.Status)
		if p.CutShort() {
			status += ", truncated" // --all leaves it out
		}
		if p.Flags.Sensitive {
			status += ", sensitive" // and this
		}
		if p.Flags.PortVaries {
			status += ", port varies" // and this
		}
		rows = append(rows, row(p.Policy, p.ID, status,
			describe.KeepEnd(describe.Programs(p), maxBinaryColumn), describe.KeepEnd(describe.Endpoint(p),
				maxEndpointColumn), describe.What(p),
			strconv.Itoa(p.Evidence.Hits), describe.Confidence(p), plain(p.Provenance.Mode), describe.SeenIn(p, runs[p.Policy])))
	}
	return rows
}
