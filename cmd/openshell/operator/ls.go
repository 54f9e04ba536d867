// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/sandbox"
)

func lsCommand() *cobra.Command {
	var asJSON, quietly bool
	cmd := &cobra.Command{
		Use:   "ls [--json | -q]",
		Short: "List the running sandboxes",
		Long: "List the sandboxes of the node, each with its state: starting, running, ending (it still writes\n" +
			"down what it learned), dead (its supervisor is: it reaches nothing any more, and its container has\n" +
			"to be stopped) or unreadable (its file below run_dir is damaged: see openshell doctor).",
		Example: "  openshell ls",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := load(cmd)
			if err != nil {
				return err
			}
			all, err := sandbox.List(c.RunDir)
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b sandbox.Info) int {
				return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
			})
			list := make([]listed, len(all))
			for i, info := range all {
				list[i] = newListed(info)
			}
			warnPermissive(cmd.ErrOrStderr(), list)
			warnPolicy(cmd.ErrOrStderr(), list)
			warnHealth(cmd.ErrOrStderr(), list)
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				return writeJSON(out, list)
			case quietly:
				for _, s := range list {
					fmt.Fprintln(out, plain(s.ID))
				}
				return nil
			}
			return writeTable(out, sandboxRows(list, time.Now()))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of sandboxes")
	cmd.Flags().BoolVarP(&quietly, "quiet", "q", false, "print only the ids, whole")
	cmd.MarkFlagsMutuallyExclusive("json", "quiet")
	return cmd
}

// listed is a sandbox as ls shows it.
type listed struct {
	sandbox.Info
	State sandbox.State `json:"state"`
	Alive bool          `json:"alive"`
}

func newListed(info sandbox.Info) listed { return listed{info, info.State(), info.Alive()} }

func (l *listed) permissive() bool { return l.Alive && l.Mode == confine.ModePermissive }

// warnPermissive is for whoever has forgotten that a sandbox still lets everything pass.
func warnPermissive(w io.Writer, list []listed) {
	n := 0
	for i := range list {
		if list[i].permissive() {
			n++
		}
	}
	if n > 0 {
		fmt.Fprintf(w, "warning: %s permissive: what the policy denies is logged and allowed\n",
			count(n, "sandbox is", "sandboxes are"))
	}
}

// warnPolicy is for whoever has changed a policy and takes it to be in force.
func warnPolicy(w io.Writer, list []listed) {
	for i := range list {
		if s := &list[i]; s.Alive && s.PolicyError != "" {
			fmt.Fprintf(w, "warning: sandbox %s keeps the last valid policy: %s\n", shortID(plain(s.ID)), plain(s.PolicyError))
		}
	}
}

// warnHealth is for whoever relies on what sandboxes learn and log.
func warnHealth(w io.Writer, list []listed) {
	for i := range list {
		if text := list[i].Health.Warning(); text != "" && list[i].Alive {
			fmt.Fprintf(w, "warning: sandbox %s: %s\n", shortID(plain(list[i].ID)), plain(text))
		}
	}
}

func sandboxRows(list []listed, now time.Time) [][]string {
	rows := [][]string{{"ID", "POLICY", "MODE", "CONFINEMENT", "CONTAINERS", "STARTED", "STATE"}}
	for i := range list {
		s := &list[i]
		if s.State == sandbox.Unreadable {
			rows = append(rows, []string{shortID(plain(s.ID)), "-", "-", "-", "-", "-", string(s.State)})
			continue
		}
		rows = append(rows, []string{shortID(plain(s.ID)), plain(s.Policy), mode(s, now), confinement(s.Containers),
			containers(s.Containers), ago(now.Sub(s.Started)), string(s.State)})
	}
	return rows
}

func mode(s *listed, now time.Time) string {
	switch left := s.Deadline.Sub(now); {
	case !s.permissive() || s.Deadline.IsZero():
		return plain(s.Mode)
	case left <= 0:
		return plain(s.Mode) + " (over)"
	default:
		return fmt.Sprintf("%s (%s left)", plain(s.Mode), span(left))
	}
}

// confinement is what holds all of the containers whose programs have begun, as it was found.
func confinement(all []sandbox.Container) string {
	landlock, seccomp, known := math.MaxInt, true, false
	for _, c := range all {
		if c.Confined == nil {
			continue
		}
		known = true
		landlock = min(landlock, c.Confined.LandlockABI)
		seccomp = seccomp && c.Confined.SeccompFilters > 0 && c.Confined.NoNewPrivs
	}
	if !known {
		return "-"
	}
	parts := []string{"no landlock", "no seccomp"}
	if landlock > 0 {
		parts[0] = fmt.Sprintf("landlock %d", landlock)
	}
	if seccomp {
		parts[1] = "seccomp"
	}
	return strings.Join(parts, ", ")
}

// maxContainers is how many containers a row names.
const maxContainers = 2

func containers(all []sandbox.Container) string {
	var ids []string
	for _, c := range all {
		ids = append(ids, shortID(plain(c.ID)))
	}
	if more := len(ids) - maxContainers; more > 0 {
		ids = append(ids[:maxContainers], fmt.Sprintf("+%d", more))
	}
	return cmp.Or(strings.Join(ids, " "), "-")
}

func ago(d time.Duration) string { return span(d) + " ago" }

// span is a duration in its greatest unit.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
