// SPDX-License-Identifier: Apache-2.0

package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"openshell.ai/openshell/cmd/openshell/decide"
	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/learn"
)

// desk is where the model's commands read and decide.
type desk struct {
	ctx      context.Context
	reviewer *decide.Reviewer
	policy   string
	drafts   string   // a directory for the rules that are being edited
	editor   []string // the command that edits a file
	poll     func() tea.Cmd
}

// The messages of the desk's commands.
type (
	// loaded is what there is to review. Stamp reports whether it has changed since.
	loaded struct {
		proposals   []learn.Proposal
		runs        []learn.RunRecord
		inForce     map[string]bool   // the ids of those of which anything is
		suggestions map[string]string // by the ids
		stamp       string
		err         error
		polled      bool // not asked for
	}
	unchanged struct{}
	pollDue   struct{}

	// difference is what an approval would change.
	difference struct {
		key   string // of the proposal: see keyOf
		stamp string
		lines []string
		err   error
	}
	// decided tells what became of a decision.
	decided struct {
		what   string
		change decide.Change
		err    error
	}
	// drafted is a rule that is ready to be edited, and edited what the reviewer made of it.
	drafted struct {
		proposal learn.Proposal
		path     string
		err      error
	}
	edited struct {
		proposal learn.Proposal
		edit     learn.Edit
		rule     string
		lines    []string
		err      error
	}
)

// pollInterval is how often the disk is looked at for changes.
const pollInterval = time.Second

func tick() tea.Cmd { return tea.Tick(pollInterval, func(time.Time) tea.Msg { return pollDue{} }) }

// load reads the proposals, unless they are those of the stamp.
func (d *desk) load(known string, polled bool) tea.Cmd {
	return func() tea.Msg {
		stamp := d.stamp() // before reading: what changes meanwhile is read again
		if stamp == known {
			return unchanged{}
		}
		m := loaded{stamp: stamp, polled: polled}
		if m.proposals, m.err = learn.List(d.reviewer.Store, d.policy); m.err != nil {
			return m
		}
		byStatus := func(a, b learn.Proposal) int {
			return cmp.Compare(slices.Index(describe.Statuses, a.Status), slices.Index(describe.Statuses, b.Status))
		}
		slices.SortStableFunc(m.proposals, byStatus)
		learned, err := learn.LearnedPolicy(d.reviewer.Store, d.policy)
		if m.err = err; err != nil {
			return m
		}
		m.inForce = map[string]bool{}
		for i := range m.proposals {
			m.inForce[m.proposals[i].ID] = m.proposals[i].CanUndo(learned)
		}
		m.suggestions = learn.Suggestions(m.proposals)
		m.runs, m.err = learn.Runs(d.reviewer.Store, d.policy)
		return m
	}
}

// stamp changes with every write: files are replaced by renaming, which changes their directories. The
// base policy may be edited in place.
func (d *desk) stamp() string {
	learned := d.reviewer.Store.LearnedPath(d.policy)
	var stamp strings.Builder
	for _, path := range []string{
		filepath.Dir(learned), learned,
		filepath.Dir(d.reviewer.Store.ProposalPath(d.policy, "p")), filepath.Dir(d.reviewer.Store.RunPath(d.policy, "r")),
		filepath.Join(d.reviewer.Config.PolicyDir, d.policy+".yaml"),
	} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&stamp, "%d %d;", info.ModTime().UnixNano(), info.Size())
		} else {
			stamp.WriteString("-;")
		}
	}
	return stamp.String()
}

func (d *desk) difference(p learn.Proposal, stamp string) tea.Cmd {
	return func() tea.Msg {
		lines, err := d.reviewer.Difference(&p, nil)
		return difference{keyOf(&p), stamp, lines, err}
	}
}

// keyOf is the proposal as it was looked at: id@digest.
func keyOf(p *learn.Proposal) string { return p.ID + "@" + p.Digest }

func (d *desk) approve(keys []string) tea.Cmd {
	return func() tea.Msg {
		change, err := d.reviewer.Approve(d.ctx, d.policy, keys)
		return decided{"approved", change, err}
	}
}

// approveAllowed is approve for many, of which those are left out that exceed the maximum policy.
func (d *desk) approveAllowed(keys []string) tea.Cmd {
	return func() tea.Msg {
		change, err := d.reviewer.ApproveAllowed(d.ctx, d.policy, keys)
		return decided{"approved", change, err}
	}
}

func (d *desk) approveEdited(key string, edit learn.Edit) tea.Cmd {
	return func() tea.Msg {
		change, err := d.reviewer.ApproveEdited(d.ctx, d.policy, key, edit)
		return decided{"approved in part", change, err}
	}
}

func (d *desk) reject(key, reason string) tea.Cmd {
	return func() tea.Msg {
		err := d.reviewer.Reject(d.policy, key, reason)
		return decided{what: "rejected " + decide.Bare(key), err: err}
	}
}

func (d *desk) undo(key string) tea.Cmd {
	return func() tea.Msg {
		change, err := d.reviewer.Undo(d.ctx, d.policy, []string{key})
		return decided{"undone", change, err}
	}
}

const draftHeader = `# Take out of this what is not to be allowed, or narrow it: a path, a host, a program.
# What is left is approved under the same name; it must be within what is proposed.
# Leave the file as it is, or empty, to approve nothing.
`

// draft writes what a proposal proposes to a file for an editor. An earlier draft of the same is kept.
func (d *desk) draft(p learn.Proposal) tea.Cmd {
	return func() tea.Msg {
		m := drafted{proposal: p, path: filepath.Join(d.drafts, p.ID+"-"+strings.TrimPrefix(p.Digest, "sha256:")+".yaml")}
		if _, err := os.Stat(m.path); err == nil {
			return m
		}
		text, err := p.Editable()
		if err == nil {
			err = os.WriteFile(m.path, append([]byte(draftHeader), text...), 0o600)
		}
		m.err = err
		return m
	}
}

// edit hands the terminal to the editor.
func (d *desk) edit(m drafted) tea.Cmd {
	command := exec.CommandContext(d.ctx, d.editor[0], append(slices.Clone(d.editor[1:]), m.path)...)
	return tea.ExecProcess(command, func(err error) tea.Msg { return d.finish(m, err) })
}

// errNoEdit says that the reviewer approves nothing.
var errNoEdit = errors.New("nothing was changed")

// maxDraft is more than any rule has, in bytes.
const maxDraft = 4 << 20

// finish reads what the reviewer made of a draft. One that cannot be approved stays, to be corrected.
func (d *desk) finish(m drafted, failed error) edited {
	done := edited{proposal: m.proposal}
	if failed != nil {
		done.err = fmt.Errorf("%s: %w: set $EDITOR to another editor", d.editor[0], failed)
		return done
	}
	draft, err := fileio.ReadFile(m.path, maxDraft)
	text := string(draft)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // an editor that leaves no empty files
		done.err = err
		return done
	}
	before, err := m.proposal.Editable()
	if err == nil && (strings.TrimSpace(text) == "" || text == draftHeader+string(before)) {
		err = errors.Join(errNoEdit, os.Remove(m.path))
	}
	if err == nil {
		done.edit, err = m.proposal.ParseEdit([]byte(text))
	}
	if err == nil {
		done.rule, err = describe.RuleYAML(&m.proposal, done.edit.Rule, done.edit.Filesystem)
	}
	if err == nil {
		done.lines, err = d.reviewer.Difference(&m.proposal, &done.edit)
	}
	done.err = err
	return done
}

// editorFrom is the editor that the environment names (environ(7)).
func editorFrom(getenv func(string) string) []string {
	for _, variable := range []string{"VISUAL", "EDITOR"} {
		if words := strings.Fields(getenv(variable)); len(words) > 0 {
			return words
		}
	}
	return []string{"vi"}
}
