package operator

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/state"
)

const allStatuses = "all"

// statuses are in the order in which proposals are listed.
var statuses = []string{learn.StatusPending, learn.StatusApproved, learn.StatusRejected, learn.StatusSuperseded}

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
			if status != allStatuses && !slices.Contains(statuses, status) {
				return fmt.Errorf("--status %q: must be one of %s, %s", status, strings.Join(statuses, ", "), allStatuses)
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
	cmd.Flags().StringVar(&status, "status", allStatuses, "only those that are pending, approved, rejected, superseded, or all")
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
			return cmp.Compare(slices.Index(statuses, a.Status), slices.Index(statuses, b.Status))
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
	maxWhatColumn     = 20
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
		notes := learn.NotesOf(runs[name])
		if len(notes) == 0 {
			continue
		}
		of := ""
		if withPolicy {
			of = " for policy " + name
		}
		fmt.Fprintf(w, "\nNot proposed%s, in %s:\n", of, count(len(runs[name]), "run", "runs"))
		for _, n := range notes {
			fmt.Fprintf(w, "%6d  %s\n", n.Count, n.Kind.Explain())
			for _, s := range n.Samples {
				fmt.Fprintf(w, "        %s\n", plain(s))
			}
		}
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
		rows = append(rows, row(p.Policy, p.ID, plain(p.Status),
			keepEnd(programs(p), maxBinaryColumn), keepEnd(endpoint(p), maxEndpointColumn), what(p),
			strconv.Itoa(p.Evidence.Hits), confidence(p), plain(p.Provenance.Mode), seenIn(p, runs[p.Policy])))
	}
	return rows
}

// seenIn says in how many of the runs a proposal was seen.
func seenIn(p *learn.Proposal, runs []learn.RunRecord) string {
	seen, of := p.SeenIn(runs)
	return fmt.Sprintf("%d of %d", seen, of)
}

// services are the hosts and ports of a proposal, each once.
func services(p *learn.Proposal) []string {
	var list []string
	if p.Rule == nil {
		return nil
	}
	for i := range p.Rule.Endpoints {
		e := &p.Rule.Endpoints[i]
		for _, port := range e.PortList() {
			s := plain(net.JoinHostPort(cmp.Or(e.Host, "*"), strconv.Itoa(int(port))))
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	return list
}

// endpoint is the destination of a proposal, and how many others it has, or the tree of its files.
func endpoint(p *learn.Proposal) string {
	if p.Kind == learn.KindFilesystem {
		return plain(p.Evidence.Tree)
	}
	return firstOf(services(p), 0)
}

// binaries are the programs that a proposal is for, each once.
func binaries(p *learn.Proposal) []string {
	var list []string
	add := func(path string) {
		if path = plain(path); path != "" && !slices.Contains(list, path) {
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

func programs(p *learn.Proposal) string { return firstOf(binaries(p), 0) }

// firstOf is the first of a list and how many follow, in width characters where that is not 0.
func firstOf(list []string, width int) string {
	if len(list) == 0 {
		return "-"
	}
	first, more := list[0], ""
	if n := len(list) - 1; n > 0 {
		more = fmt.Sprintf(" +%d", n)
	}
	if width > 0 {
		first = keepStart(first, width-len(more))
	}
	return first + more
}

// what says how much a proposal allows, in one cell.
func what(p *learn.Proposal) string {
	if p.Kind == learn.KindFilesystem {
		return fileCount(p)
	}
	if grants := learn.Grants(p.Rule); len(grants) > 0 {
		grants[0] = plain(grants[0])
		return firstOf(grants, maxWhatColumn)
	}
	e := &p.Rule.Endpoints[0]
	switch {
	case e.Protocol == policy.ProtocolUDP:
		return "any (UDP)"
	case e.TLS == policy.TLSSkip:
		return "any (L4, tls: skip)"
	}
	return "any (L4)"
}

// fileCount says how many paths are to be read, and written.
func fileCount(p *learn.Proposal) string {
	var parts []string
	if n := len(p.Filesystem.ReadOnly); n > 0 {
		parts = append(parts, fmt.Sprintf("read %d", n))
	}
	if n := len(p.Filesystem.ReadWrite); n > 0 {
		parts = append(parts, fmt.Sprintf("write %d", n))
	}
	return strings.Join(parts, ", ")
}

func confidence(p *learn.Proposal) string { return strconv.FormatFloat(p.Confidence, 'f', 2, 64) }

// subject is a proposal in a few words.
func subject(p *learn.Proposal) string {
	if p.Kind == learn.KindFilesystem {
		return plain(p.Rationale)
	}
	return programs(p) + " to " + endpoint(p) + ", " + what(p)
}
