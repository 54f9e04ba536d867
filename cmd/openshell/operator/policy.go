// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "policy COMMAND",
		Short:   "Show, check, export and try policies",
		Example: "  openshell policy show agent",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyShowCommand(), policyCheckCommand(), policyExportCommand(),
		policyEvalCommand(), policyProposeCommand(), policyExplainCommand(), policyDiffCommand())
	return cmd
}

func policyShowCommand() *cobra.Command {
	var learnedOnly, baseOnly bool
	cmd := &cobra.Command{
		Use:   "show NAME [--base | --learned]",
		Short: "Show a policy, and where its parts come from",
		Long: "Show the effective policy of a name: the operator's policy, or the default, and the rules that\n" +
			"were approved. The comments say where each comes from.",
		Example: "  openshell policy show agent\n" +
			"  openshell policy show agent --learned",
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			p, err := named(c, store, given[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			var which *policy.Policy
			switch {
			case baseOnly:
				which = p.Base
				fmt.Fprintf(out, "# The base of policy %s.\n", p.Name)
			case learnedOnly:
				which = policy.Merge(nil, p.Learned)
				fmt.Fprintf(out, "# What was approved for policy %s.\n", p.Name)
			default:
				which = p.Effective
				fmt.Fprintf(out, "# The effective policy %s: the base and what was approved.\n", p.Name)
			}
			if !learnedOnly {
				fmt.Fprintf(out, "# base: %s\n", origin(c, p))
			}
			if !baseOnly {
				fmt.Fprintf(out, "# approved: %s (%s)\n", count(len(p.Learned.Network), "rule", "rules"), store.LearnedPath(p.Name))
			}
			return writeAnnotated(out, store, p, which)
		},
	}
	cmd.Flags().BoolVar(&baseOnly, "base", false, "only the operator's policy, or the default that stands in for it")
	cmd.Flags().BoolVar(&learnedOnly, "learned", false, "only what was approved")
	cmd.MarkFlagsMutuallyExclusive("base", "learned")
	return cmd
}

// named loads the policies of a name, and refuses a name that nothing is known of:
// showing the default for it would hide a slip of the pen.
func named(c *config.Config, store *state.Store, name string) (*policystore.Policies, error) {
	p, err := policystore.Load(c, name)
	if err != nil {
		return nil, err
	}
	if p.Named {
		return p, nil
	}
	ids, err := store.ProposalIDs(name)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("policy %s: there is none: write %s, or run a container permissively with that name", name,
			ownFile(c, name))
	}
	return p, nil
}

func ownFile(c *config.Config, name string) string { return filepath.Join(c.PolicyDir, name+".yaml") }

// origin says where a base policy comes from.
func origin(c *config.Config, p *policystore.Policies) string {
	switch p.BaseFile {
	case "":
		return fmt.Sprintf("the built-in default, as there is no %s", ownFile(c, p.Name))
	case ownFile(c, p.Name):
		return p.BaseFile
	}
	return fmt.Sprintf("%s, the node's default_policy, as there is no %s", p.BaseFile, ownFile(c, p.Name))
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check policy files, and say all that is wrong with them",
		Long: "Check policy files. Problems and warnings are printed to standard error, one a line, as\n" +
			"file:line:column: field: reason. The exit code is 2 if a policy is invalid.",
		Example: "  openshell policy check /etc/openshell/policies/*.yaml",
		Args:    args(1, -1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var unread []error
			invalid := false
			for _, file := range files {
				data, err := readPolicy(cmd.InOrStdin(), file)
				if err != nil {
					unread = append(unread, err)
					continue
				}
				_, warnings, err := policy.Parse(data)
				for _, w := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), plain(place(file, policy.Problem(w), "warning: ")))
				}
				if err != nil {
					invalid = true
					writeProblems(cmd.ErrOrStderr(), file, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: valid\n", plain(file))
			}
			if invalid {
				for _, err := range unread {
					Report(cmd.ErrOrStderr(), err)
				}
				return &exitError{exitInvalid}
			}
			return errors.Join(unread...)
		},
	}
}

// writeProblems writes all that is wrong with a policy, one a line.
func writeProblems(w io.Writer, file string, err error) {
	var problems policy.Errors
	if !errors.As(err, &problems) {
		Report(w, err)
		return
	}
	for _, p := range problems {
		fmt.Fprintln(w, plain(place(file, p, "")))
	}
}

// place renders a problem as "file:line:col: field: reason", with what kind it is before the field.
func place(file string, p policy.Problem, kind string) string {
	at := file
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", file, p.Line, p.Column)
	}
	p.Line, p.Column = 0, 0
	return at + ": " + kind + p.Error()
}

// maxPolicyFile bounds what is read of a policy, in bytes. It is more than what package policy accepts.
const maxPolicyFile = 8 << 20

// readPolicy reads a policy file, or standard input for "-".
func readPolicy(stdin io.Reader, file string) ([]byte, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		defer f.Close()
		r = f
	}
	data, err := fileio.ReadAll(r, maxPolicyFile)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", file, err)
	}
	return data, nil
}
