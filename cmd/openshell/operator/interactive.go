// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"github.com/spf13/cobra"

	"openshell.ai/openshell/cmd/openshell/review"
)

func reviewCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "review POLICY",
		Short: "Review proposals on the whole screen: look, approve, reject, edit, undo",
		Long: "List the proposals of a policy on the terminal, with all there is to know about the selected one\n" +
			"and what its approval would change, and decide on them with single keys: ? shows them all.\n" +
			"e opens a rule in $VISUAL, $EDITOR or vi, to approve less than is proposed.",
		Example: "  openshell review agent",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			r, err := reviewer(cmd, by)
			if err != nil {
				return err
			}
			if _, err := named(r.Config, r.Store, given[0]); err != nil {
				return err
			}
			return review.Run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), r, given[0])
		},
	}
	byFlag(cmd, &by)
	return cmd
}
