// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/report"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
)

func reportCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "report POLICY --html FILE",
		Short: "Write a page on what a policy allows, what was seen, and who decided what",
		Long: "Write one self-contained HTML page on a policy, to read or to print without this node: where it was\n" +
			"not enforced, the map of programs, hosts and requests, the tree of files, the runs and decisions\n" +
			"in order of time, and every proposal with its evidence.",
		Example: "  openshell report agent --html agent.html",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			if file == "" {
				return errors.New("name the file to write: " + usage(cmd))
			}
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			data, err := reportData(c, store, given[0])
			if err != nil {
				return err
			}
			var page bytes.Buffer
			if err := report.Write(&page, data); err != nil {
				return err
			}
			if file == "-" {
				_, err := cmd.OutOrStdout().Write(page.Bytes())
				return err
			}
			return replaceFile("--html", file, page.Bytes(), 0o600) // it tells what only root can read
		},
	}
	cmd.Flags().StringVar(&file, "html", "", "the `FILE` to write, atomically, or - for standard output (required)")
	return cmd
}

// reportData collects what is known under a policy's name.
func reportData(c *config.Config, store *state.Store, name string) (*report.Data, error) {
	p, err := named(c, store, name)
	if err != nil {
		return nil, err
	}
	d := &report.Data{Policy: name, Base: p.Base, Origin: origin(c, p), Learned: p.Learned, Effective: p.Effective,
		Now: time.Now()}
	if d.Proposals, err = listProposals(store, []string{name}); err != nil {
		return nil, err
	}
	if d.Runs, err = learn.Runs(store, name); err != nil {
		return nil, err
	}
	all, err := sandbox.List(c.RunDir)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if info := &all[i]; info.Policy == name && info.Alive() {
			d.Running = append(d.Running, report.Sandbox{ID: info.ID, Permissive: info.Mode == confine.ModePermissive,
				Deadline: info.Deadline})
		}
	}
	return d, nil
}
