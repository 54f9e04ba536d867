// SPDX-License-Identifier: Apache-2.0

package app

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/operator"
	"openshell.ai/openshell/cmd/openshell/try"
	"openshell.ai/openshell/internal/usertext"
	"openshell.ai/openshell/internal/version"
	"openshell.ai/openshell/runtime"
)

// operate carries out an operator's command.
func operate(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if status := (try.StatusError{}); errors.As(err, &status) {
		if status.Err != nil {
			operator.Report(os.Stderr, status.Err)
		}
		return status.Status
	}
	return operator.Report(os.Stderr, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "openshell",
		Short: "Run containers in a sandbox whose policy is learned in one permissive run",
		Long: `openshell is an OCI runtime that wraps runc. Engines call it like runc:

  nerdctl run --runtime openshell --annotation openshell.ai/policy=agent --annotation openshell.ai/permissive=true IMAGE
  podman run --runtime openshell --annotation openshell.ai/policy=agent --annotation openshell.ai/permissive=true IMAGE

A permissive run lets everything through that the policy would have denied and
proposes rules for it. Review them, approve them, and run again without the
permissive annotation: what was approved works, anything else is refused.

OCI runtime commands (as in runc): create start run state kill delete exec list
ps pause resume update events checkpoint restore spec features`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(operator.Commands()...)
	root.AddCommand(try.Command())
	return root
}

// unknownCommand is the error for a command that is neither the operator's nor an OCI runtime's.
func unknownCommand(name string) error {
	known := func(yield func(string) bool) {
		for _, c := range newRoot().Commands() {
			if !yield(c.Name()) {
				return
			}
		}
		runtime.Commands()(yield)
	}
	if near := usertext.Closest(name, known, func(known string) int { return (len(known) + 2) / 3 }); near != "" {
		return fmt.Errorf("unknown command %q: did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown command %q: openshell --help lists them", name)
}

// isOperator tells an operator's command from an OCI one by its name.
func isOperator(name string) bool {
	if name == "completion" || name == cobra.ShellCompRequestCmd || name == cobra.ShellCompNoDescRequestCmd {
		return true
	}
	return slices.ContainsFunc(newRoot().Commands(), func(c *cobra.Command) bool { return c.Name() == name })
}
