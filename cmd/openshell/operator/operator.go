// SPDX-License-Identifier: Apache-2.0

// Package operator owns the operator's commands of openshell: the review of
// proposals, the policies, the logs, the running sandboxes and the check of the
// node. It owns what they print, for people and for programs, and their exit
// codes.
//
// It decides nothing itself: what a proposal, a policy or a sandbox is, and how it
// changes, is the business of packages learn, policy and sandbox.
package operator

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/state"
)

// Commands returns the operator's commands, for the root command of openshell. Give
// the error of its execution to Report: they print none themselves.
func Commands() []*cobra.Command {
	commands := []*cobra.Command{
		proposalsCommand(), showCommand(),
		reviewCommand(), approveCommand(), rejectCommand(), undoCommand(),
		policyCommand(), reportCommand(),
		logsCommand(), lsCommand(), doctorCommand(),
	}
	for _, cmd := range commands {
		cmd.PersistentFlags().String("config", "",
			"the node's configuration `FILE` (default $"+config.PathVariable+" or "+config.DefaultPath+")")
		quiet(cmd)
	}
	return commands
}

// quiet leaves it to Report to say what went wrong, on one line.
func quiet(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.DisableFlagsInUseLine = true // the usage lines name them
	for _, sub := range cmd.Commands() {
		quiet(sub)
	}
}

// load reads the configuration that the command is to use.
func load(cmd *cobra.Command) (*config.Config, *state.Store, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, nil, err
	}
	c, err := config.Load(path)
	if err != nil {
		return nil, nil, err
	}
	return c, state.Open(c.StateDir), nil
}

// args checks the number of a command's arguments, whose names its usage line has.
// A negative most means any number.
func args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < least:
			return fmt.Errorf("an argument is missing: %s", usage(cmd))
		case most >= 0 && len(given) > most:
			return fmt.Errorf("unexpected argument %q: %s", given[most], usage(cmd))
		}
		return nil
	}
}

// usage is the usage line, with the whole command.
func usage(cmd *cobra.Command) string { return strings.TrimSpace(cmd.UseLine()) }

// writeJSON writes one indented document for programs.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
