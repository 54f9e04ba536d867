// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/keeper"
	"openshell.ai/openshell/internal/sandbox"
)

// The outcomes of a check.
const (
	statusOK   = "ok"
	statusWarn = "warn" // sandboxes run, with less than they could have
	statusFail = "fail" // no sandbox can run
)

// finding is the outcome of one check of the node.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitzero"` // what to do about it, unless all is well
}

func ok(name, detail string) finding { return finding{Name: name, Status: statusOK, Detail: detail} }

func warn(name, detail, fix string) finding { return finding{name, statusWarn, detail, fix} }

func fail(name, detail, fix string) finding { return finding{name, statusFail, detail, fix} }

func doctorCommand() *cobra.Command {
	var asJSON, clean bool
	cmd := &cobra.Command{
		Use:   "doctor [--json] [--clean]",
		Short: "Check whether this node can run sandboxes",
		Long: "Check what sandboxes need of the node, say how to fix what is missing, and print the effective\n" +
			"configuration. The exit code is 1 if a required part is missing. --clean first removes what dead\n" +
			"supervisors left and no container uses, and sandboxes whose files below run_dir are damaged.",
		Example: "  openshell doctor",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if clean {
				if err := cleanUp(cmd); err != nil {
					return err
				}
			}
			findings, c := examine(cmd)
			effective, err := c.Marshal()
			if err != nil {
				return err
			}
			if asJSON {
				err = writeReport(cmd.OutOrStdout(), findings, effective)
			} else {
				err = writeFindings(cmd.OutOrStdout(), findings, effective)
			}
			if err != nil {
				return err
			}
			for _, f := range findings {
				if f.Status == statusFail {
					return &exitError{exitFailed}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&clean, "clean", false, "first remove what is left of sandboxes that have no supervisor")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the checks and the configuration as one JSON document")
	return cmd
}

// cleanUp removes what is left of sandboxes, and says on standard error what that was.
func cleanUp(cmd *cobra.Command) error {
	c, _, err := load(cmd)
	if err != nil {
		return err
	}
	removed, err := sandbox.Clean(c.RunDir)
	for _, id := range removed {
		fmt.Fprintf(cmd.ErrOrStderr(), "removed the unreadable sandbox %s\n", plain(id))
	}
	return err
}

// examine runs all checks. A configuration that cannot be used is a finding too; the
// defaults stand in for it in the others.
func examine(cmd *cobra.Command) ([]finding, *config.Config) {
	configured := configFile(cmd)
	c, _, err := load(cmd)
	configuration := ok("configuration", configured)
	if err != nil {
		c = config.Default()
		configuration = fail("configuration", oneLine(err),
			"correct what it names; the rest of this report assumes the defaults")
	}
	ctx := cmp.Or(cmd.Context(), context.Background())
	findings := []finding{
		checkRoot(os.Geteuid()),
		configuration,
		checkLandlock(),
		checkSeccomp(),
		checkNetwork(),
		checkObservation(),
		checkRuntime(ctx, c.Runtime),
		checkHelper("launcher", confine.InitName),
		checkHelper("keeper", keeper.Name),
		checkPrivate("state_dir", c.StateDir),
		checkPrivate("run_dir", c.RunDir),
		checkPolicies(c),
		checkCeilings(c),
		checkUpstreamProxy(ctx, c),
		checkSandboxes(c, time.Now()),
	}
	return findings, c
}

// configFile says where the configuration comes from, as config.Load decides it.
func configFile(cmd *cobra.Command) string {
	named, _ := cmd.Flags().GetString("config")
	if path := cmp.Or(named, os.Getenv(config.PathVariable)); path != "" {
		return path
	}
	if _, err := os.Stat(config.DefaultPath); err != nil {
		return "the defaults, as there is no " + config.DefaultPath
	}
	return config.DefaultPath
}

func writeFindings(w io.Writer, findings []finding, effective []byte) error {
	colour := coloured(w)
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Name))
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%s%s  %-*s  %s\n", paint(colour, f.Status), strings.Repeat(" ", len(statusWarn)-len(f.Status)),
			width, f.Name, plain(f.Detail))
		if f.Fix != "" {
			fmt.Fprintf(w, "%*s  %-*s  fix: %s\n", len(statusWarn), "", width, "", plain(f.Fix))
		}
	}
	_, err := fmt.Fprintf(w, "\nEffective configuration:\n%s", indent(string(effective)))
	return err
}

func writeReport(w io.Writer, findings []finding, effective []byte) error {
	var configuration map[string]any
	if err := yaml.Load(effective, &configuration); err != nil {
		return fmt.Errorf("effective configuration: %w", err)
	}
	return writeJSON(w, struct {
		Checks        []finding      `json:"checks"`
		Configuration map[string]any `json:"configuration"`
	}{findings, configuration})
}
