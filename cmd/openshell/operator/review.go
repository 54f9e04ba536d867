package operator

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/config"
	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/sandbox"
	"openshell.ai/openshell/state"
)

func approveCommand() *cobra.Command {
	var all, truncated bool
	var by string
	cmd := &cobra.Command{
		Use:   "approve POLICY ID... | POLICY --all [--include-truncated]",
		Short: "Allow what proposals propose, also in the sandboxes that run",
		Long: "Add the rules of proposals to a policy, exactly as shown and each under its own key, and print\n" +
			"the difference. An ID may be cut short as long as it is unique. ID@DIGEST, as openshell show\n" +
			"prints it, approves only the rule that was looked at, should the proposal have grown since.\n" +
			"--all leaves out, and fails for, proposals that do not tell all that was seen, or allow more\n" +
			"than that because there was too much of it, unless --include-truncated is given too.",
		Example: "  openshell approve agent p-3f9a1c2b\n" +
			"  openshell approve agent --all",
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name, ids := given[0], given[1:]
			if truncated && !all {
				return errors.New("--include-truncated goes with --all: " + usage(cmd))
			}
			if all == (len(ids) > 0) {
				return errors.New("name the proposals, or use --all for all that are pending: " + usage(cmd))
			}
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			var leftOut error
			if all {
				ids, leftOut, err = pendingIDs(store, name, truncated)
			} else {
				ids, err = matchIDs(store, name, ids)
			}
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				if leftOut == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "nothing is pending for policy %s\n", name)
				}
				return errors.Join(leftOut, reload(cmd, c, name)) // should that have failed the last time
			}
			if ids, err = withinMaximum(c, store, name, ids); err != nil {
				return err
			}
			if err := staysValid(c, store, name, ids); err != nil {
				return err
			}
			err = change(cmd, c, name, func() error {
				result, err := learn.Approve(store, name, ids, by)
				for i := range result.Approved {
					p := &result.Approved[i]
					fmt.Fprintf(cmd.OutOrStdout(), "approved %s: %s\n", p.ID, subject(p))
				}
				for i := range result.Superseded {
					p := &result.Superseded[i]
					fmt.Fprintf(cmd.OutOrStdout(), "superseded %s: allowed by %s\n", p.ID, p.SupersededBy)
				}
				if err == nil && len(result.Approved) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "approved already")
				}
				return err
			})
			return errors.Join(err, leftOut)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "approve all that are pending")
	cmd.Flags().BoolVar(&truncated, "include-truncated", false, "with --all: also those that were cut short")
	byFlag(cmd, &by)
	return cmd
}

func rejectCommand() *cobra.Command {
	var reason, by string
	cmd := &cobra.Command{
		Use:   "reject POLICY ID... --reason TEXT",
		Short: "Put proposals aside, until their rules change",
		Long: "Mark proposals as not wanted. They stay rejected in later runs unless their rules change.\n" +
			"What was approved has to be undone first.",
		Example: "  openshell reject agent p-3f9a1c2b --reason 'the agent has no business there'",
		Args:    args(2, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			if strings.TrimSpace(reason) == "" {
				return errors.New("say why: --reason TEXT")
			}
			_, store, err := load(cmd)
			if err != nil {
				return err
			}
			ids, err := matchIDs(store, name, given[1:])
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := learn.Reject(store, name, id, reason, by); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "rejected %s\n", bare(id))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who review later (required)")
	byFlag(cmd, &by)
	return cmd
}

func undoCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "undo POLICY ID...",
		Short: "Take approved proposals back, also in the sandboxes that run",
		Long: "Remove exactly the rules of approved proposals from a policy, make the proposals pending again,\n" +
			"and print the difference. What is not approved is left as it is.",
		Example: "  openshell undo agent p-3f9a1c2b",
		Args:    args(2, -1),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			ids, err := matchIDs(store, name, given[1:])
			if err != nil {
				return err
			}
			return change(cmd, c, name, func() error {
				for _, id := range ids {
					done, err := undo(store, name, id, by)
					if err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", done, bare(id))
				}
				return nil
			})
		},
	}
	byFlag(cmd, &by)
	return cmd
}

// undo takes a proposal back and says what became of it. To undo again changes nothing, but
// brings the policy to sandboxes that were not reached the first time.
func undo(store *state.Store, policyName, id, by string) (string, error) {
	p, err := learn.Get(store, bare(id))
	if err != nil {
		return "", err
	}
	learned, err := learn.LearnedPolicy(store, policyName)
	if err != nil {
		return "", err
	}
	if !p.CanUndo(learned) {
		return "not approved:", nil
	}
	_, err = learn.Undo(store, policyName, id, by)
	return "undone", err
}

func byFlag(cmd *cobra.Command, by *string) {
	who := cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("USER"), fmt.Sprintf("uid %d", os.Getuid()))
	cmd.Flags().StringVar(by, "by", who, "`who` decides, for the record")
}

// change runs what changes a policy, prints what that made of the effective policy, and
// brings it to the running sandboxes. A change that was made in part is brought there too.
func change(cmd *cobra.Command, c *config.Config, name string, apply func() error) error {
	before, err := sandbox.LoadPolicies(c, name)
	if err != nil {
		return err
	}
	failed := apply()
	after, err := sandbox.LoadPolicies(c, name)
	if err != nil {
		return errors.Join(failed, err)
	}
	out := cmd.OutOrStdout()
	difference := policy.Diff(before.Effective, after.Effective)
	if failed != nil && len(difference) == 0 {
		return failed
	}
	if len(difference) == 0 {
		fmt.Fprintln(out, "the effective policy allows the same as before")
	}
	writeDiff(out, "", difference)
	return errors.Join(failed, reload(cmd, c, name))
}

// reload makes the running sandboxes use what the policy's files say.
func reload(cmd *cobra.Command, c *config.Config, name string) error {
	ids, err := sandbox.Reload(cmd.Context(), c.RunDir, name)
	if len(ids) > 0 {
		slices.Sort(ids)
		fmt.Fprintf(cmd.OutOrStdout(), "reloaded in: %s\n", plain(strings.Join(ids, ", ")))
	}
	if err != nil {
		return fmt.Errorf("policy %s is changed, but not in force everywhere: %w: run the command again", name, err)
	}
	return nil
}

// staysValid reports whether the effective policy is valid once the proposals are approved. Each may be, and
// there may still be too many paths, or endpoints that contradict those of the base.
func staysValid(c *config.Config, store *state.Store, name string, ids []string) error {
	now, err := sandbox.LoadPolicies(c, name)
	if err != nil {
		return err
	}
	learned := now.Learned.Clone()
	for _, id := range ids {
		p, err := learn.Get(store, bare(id))
		if err != nil {
			return err
		}
		p.AddTo(learned)
	}
	if err := policy.Merge(now.Base, learned).Validate(); err != nil {
		return fmt.Errorf("nothing is approved: the effective policy would not be valid: %s", strings.ReplaceAll(plain(err.Error()), "\n", "; "))
	}
	return nil
}

// pendingIDs are the proposals of a policy that wait for a decision. Those that were cut short are left
// out, and named in leftOut, unless they are wanted.
func pendingIDs(store *state.Store, policyName string, truncated bool) (ids []string, leftOut, err error) {
	proposals, err := learn.List(store, policyName)
	if err != nil {
		return nil, nil, err
	}
	var cut []string
	for i := range proposals {
		switch p := &proposals[i]; {
		case p.Status != learn.StatusPending:
		case p.Truncated() && !truncated:
			cut = append(cut, p.ID)
		default:
			ids = append(ids, p.ID)
		}
	}
	if truncated {
		return ids, nil, nil
	}
	return ids, truncation(store, policyName, cut), nil
}

// truncation says what was cut short: proposals, or what there are no proposals for at all.
func truncation(store *state.Store, policyName string, cut []string) error {
	var reasons []string
	if len(cut) > 0 {
		reasons = append(reasons, fmt.Sprintf("not approved, because too much was seen to tell it all: %s: look at them with openshell show, or use --include-truncated",
			strings.Join(cut, ", ")))
	}
	runs, err := learn.Runs(store, policyName)
	if err != nil {
		return err
	}
	lost := 0
	for i := range runs {
		lost += runs[i].Lost
	}
	if lost > 0 {
		reasons = append(reasons, fmt.Sprintf("%s of policy %s had no room in any proposal: what is approved does not cover all that was seen: --include-truncated accepts that",
			count(lost, "denial", "denials"), policyName))
	}
	if len(reasons) == 0 {
		return nil
	}
	return errors.New(strings.Join(reasons, "; "))
}

// allIDs are the proposals of all policies.
func allIDs(store *state.Store) ([]string, error) {
	names, err := store.Policies()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		ids, err := store.ProposalIDs(name)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

// matchIDs completes the ids of a policy's proposals, each once. All of them are checked before any is
// acted upon.
func matchIDs(store *state.Store, policyName string, given []string) ([]string, error) {
	known, err := store.ProposalIDs(policyName)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, arg := range given {
		id, err := matchID(known, arg)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w: see openshell proposals %s", policyName, err, policyName)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// matchID completes an id that may be cut short, or lack its "p-". An "@" and a digest
// after it stay.
func matchID(known []string, arg string) (string, error) {
	prefix, digest, pinned := strings.Cut(arg, "@")
	found := []string{prefix}
	if !slices.Contains(known, prefix) {
		found = slices.DeleteFunc(slices.Clone(known), func(id string) bool {
			return prefix == "" || !strings.HasPrefix(id, prefix) && !strings.HasPrefix(id, "p-"+prefix)
		})
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("proposal %q: there is none", plain(arg))
	case len(found) > 1:
		return "", fmt.Errorf("proposal %q: is the beginning of %s", plain(arg), strings.Join(found, " and "))
	case pinned:
		return found[0] + "@" + digest, nil
	}
	return found[0], nil
}

// bare is an id without the digest.
func bare(id string) string {
	id, _, _ = strings.Cut(id, "@")
	return id
}
