// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"openshell.ai/openshell/policy"
)

func policyDiffCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B [--json]",
		Short: "Show what two policies allow differently",
		Long: "Compare two policies, each a file or the name of one, by what they allow. What is only written\n" +
			"differently does not show: the order, comments, port or ports, a preset or the rules it stands for.\n" +
			"The exit code is 0 if they allow the same, 1 if not, and 2 if there is an error.",
		Example: "  openshell policy diff agent exported.yaml",
		Args:    args(2, 2),
		RunE: func(cmd *cobra.Command, given []string) error {
			var sides [2]*policy.Policy
			for i, which := range given {
				var err error
				if sides[i], err = policyFrom(cmd, which, asEither); err != nil {
					return invalid(cmd, err)
				}
			}
			changes := policy.Compare(sides[0], sides[1])
			out := cmd.OutOrStdout()
			if asJSON {
				if changes == nil {
					changes = []policy.Change{}
				}
				if err := writeJSON(out, changes); err != nil {
					return err
				}
			}
			for _, c := range changes {
				if asJSON {
					break
				}
				if err := writeChange(out, c); err != nil {
					return err
				}
			}
			if len(changes) > 0 {
				return &exitError{exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// invalid makes an error exit with the code of an invalid policy.
func invalid(cmd *cobra.Command, err error) error {
	Report(cmd.ErrOrStderr(), err)
	return &exitError{exitInvalid}
}

// writeChange writes a part's difference: in words, and below them its YAML.
func writeChange(w io.Writer, c policy.Change) error {
	fmt.Fprintf(w, "%s: %s\n", plain(c.Section), c.Kind)
	var words []string
	for _, s := range c.Removed {
		words = append(words, "- "+s)
	}
	for _, s := range c.Added {
		words = append(words, "+ "+s)
	}
	writeDiff(w, "  ", words)
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: difflib.SplitLines(c.Before),
		B: difflib.SplitLines(c.After), Context: 3})
	if err != nil {
		return fmt.Errorf("compare %s: %w", c.Section, err)
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "+++"):
		case strings.HasPrefix(line, "@@"):
			lines = append(lines, "  ...")
		case line != " ":
			lines = append(lines, line[:1]+" "+line[1:])
		}
	}
	writeDiff(w, "    ", lines)
	_, err = fmt.Fprintln(w)
	return err
}

// reading says what an argument that names a policy is.
type reading int

const (
	asFile   reading = iota
	asName           // of a policy, whose effective one is meant
	asEither         // a file if there is one, or it could not be a name
)

// policyFrom reads the policy that an argument names. All that is wrong with a file
// is printed.
func policyFrom(cmd *cobra.Command, which string, how reading) (*policy.Policy, error) {
	if how == asEither {
		how = asName
		_, err := os.Stat(which)
		if err == nil || which == "-" || strings.ContainsRune(which, os.PathSeparator) || strings.HasSuffix(which, ".yaml") {
			how = asFile
		}
	}
	if how == asName {
		c, store, err := load(cmd)
		if err != nil {
			return nil, err
		}
		p, err := named(c, store, which)
		if err != nil {
			return nil, err
		}
		return p.Effective, nil
	}
	data, err := readPolicy(cmd.InOrStdin(), which)
	if err != nil {
		return nil, err
	}
	p, _, err := policy.Parse(data)
	var problems policy.Errors
	if errors.As(err, &problems) {
		writeProblems(cmd.ErrOrStderr(), which, err)
		return nil, &exitError{exitInvalid}
	}
	return p, err
}
