// SPDX-License-Identifier: Apache-2.0

// Package review owns the terminal interface for reviewers: the proposals of a policy as a list, all
// there is to know about the selected one, and the keys that decide on it.
//
// The model is pure: what a key or a message makes of the screen is decided without a terminal or a file, and
// whatever reads or changes something is a command (desk.go). What a proposal is called is the business of
// package describe, and what a decision does of package decide, so that it is
// the same here as on the command line.
package review

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"

	"openshell.ai/openshell/cmd/openshell/decide"
)

// Run shows the proposals of a policy until the reviewer quits. It fails where in or out is not a
// terminal.
func Run(ctx context.Context, in io.Reader, out io.Writer, reviewer *decide.Reviewer, policyName string) error {
	for _, side := range []any{in, out} {
		if f, ok := side.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
			return fmt.Errorf("review needs a terminal: without one, use openshell proposals %s, show, approve and reject",
				policyName)
		}
	}
	drafts, err := os.MkdirTemp("", "openshell-review-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(drafts)
	d := &desk{ctx: ctx, reviewer: reviewer, policy: policyName, drafts: drafts, editor: editorFrom(os.Getenv), poll: tick}
	_, err = tea.NewProgram(newModel(d), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}
