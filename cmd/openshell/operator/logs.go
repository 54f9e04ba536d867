// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
)

func logsCommand() *cobra.Command {
	var follow, asJSON bool
	last := -1
	cmd := &cobra.Command{
		Use:   "logs SANDBOX [-f] [-n LINES] [--json]",
		Short: "Print what a sandbox did and was denied",
		Long: "Print the log of a running or a finished sandbox, which is named by its id or that of one of its\n" +
			"containers, or the beginning of either. Of a finished one only its own id is known.",
		Example: "  openshell logs -f 4f1c2d\n" +
			"  openshell logs 4f1c2d --json | jq 'select(.disposition == \"Blocked\")'",
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			if last < -1 {
				return fmt.Errorf("-n %d: must not be negative", last)
			}
			id, err := findLogs(c, given[0])
			if err != nil {
				return err
			}
			if info, err := sandbox.Find(c.RunDir, id); err == nil {
				warnHealth(cmd.ErrOrStderr(), []listed{newListed(info)})
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			l := &logPrinter{out: bufio.NewWriter(cmd.OutOrStdout()), last: last, raw: asJSON}
			t := &tail{path: filepath.Join(store.SandboxDir(id), "openshell.log")}
			if asJSON {
				t.path = filepath.Join(store.SandboxDir(id), "events.jsonl")
			}
			defer t.close()
			if err := l.print(t); err != nil {
				return err
			}
			if asJSON && t.held == nil && !c.Audit.OCSF {
				return errors.New("there are no JSON events: audit.ocsf is false in the node's configuration")
			}
			if !follow {
				return l.finish(t)
			}
			return l.follow(ctx, t, func() (bool, error) { return running(c.RunDir, id) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the sandbox ends or the command is interrupted")
	cmd.Flags().IntVarP(&last, "lines", "n", -1, "only the last `LINES` of what is there (default all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the OCSF events, one JSON object a line")
	return cmd
}

// findLogs returns the id of the sandbox that is meant: a running one, or else one that
// left its logs.
func findLogs(c *config.Config, name string) (string, error) {
	if err := state.CheckName(name); err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	dirs, err := os.ReadDir(filepath.Join(c.StateDir, "sandboxes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("list sandboxes: %w", err)
	}
	var found []string
	for _, d := range dirs {
		if d.Name() == name {
			return name, nil
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), name) {
			found = append(found, d.Name())
		}
	}
	info, err := sandbox.Find(c.RunDir, name)
	switch {
	case err == nil:
		return info.ID, nil
	case !errors.Is(err, sandbox.ErrNotFound):
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("sandbox %w: see openshell ls", err)
	case len(found) > 1:
		return "", fmt.Errorf("sandbox %s: is the beginning of %s", name, plain(strings.Join(found, ", ")))
	}
	return found[0], nil
}

// running reports whether a sandbox can still log.
func running(runDir, id string) (bool, error) {
	info, err := sandbox.Find(runDir, id)
	if errors.Is(err, sandbox.ErrNotFound) || err == nil && info.ID != id {
		return false, nil
	}
	return err == nil && info.Alive(), err
}

// logPrinter prints lines of a log.
type logPrinter struct {
	out  *bufio.Writer
	last int  // how many lines of what is there; negative: all
	raw  bool // JSON, which goes to programs as it is
}

// print prints what is there.
func (l *logPrinter) print(t *tail) error {
	if l.last < 0 {
		if err := t.read(l.line); err != nil {
			return err
		}
		return l.out.Flush()
	}
	var kept []string // the last lines, from next on, in a circle once it is full
	next := 0
	err := t.read(func(line []byte) error {
		switch {
		case len(kept) < l.last:
			kept = append(kept, string(line))
		case l.last > 0:
			kept[next] = string(line)
			next = (next + 1) % l.last
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range kept {
		if err := l.line([]byte(kept[(next+i)%len(kept)])); err != nil {
			return err
		}
	}
	return l.out.Flush()
}

func (l *logPrinter) line(line []byte) error {
	if !l.raw {
		line = []byte(plain(string(line)))
	}
	if _, err := l.out.Write(line); err != nil {
		return err
	}
	return l.out.WriteByte('\n')
}

// finish prints the line that a killed supervisor left without its end.
func (l *logPrinter) finish(t *tail) error {
	if err := t.endLine(l.line); err != nil {
		return err
	}
	return l.out.Flush()
}

// pollInterval is how often a followed log is looked at. An event takes up to 250 ms to the file
// anyway.
const pollInterval = 200 * time.Millisecond

// follow prints what comes, until the sandbox has ended or the context has.
func (l *logPrinter) follow(ctx context.Context, t *tail, running func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	ended := false
	for {
		if err := t.read(l.line); err != nil {
			return err
		}
		if err := l.out.Flush(); err != nil {
			return err
		}
		if ended {
			return l.finish(t)
		}
		on, err := running()
		if err != nil {
			return err
		}
		ended = !on // once more after this, for what its last events are
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
