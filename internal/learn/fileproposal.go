// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
)

// filesystemKind is for paths of filesystem_policy.
type filesystemKind struct{}

// addFile takes in one access, by what it needs.
func (e *Evidence) addFile(run Run, n accessRequest, a FileAccess) {
	e.addHit(run, a.Time.UTC(), a.Permissive, "") // the programs of a tree are several
	e.files.add(n, a)
	e.addReason(audit.Escape(strings.ReplaceAll(a.Reason, a.Path, e.target.tree), maxShownReason), 1)
}

func (filesystemKind) target(p *Proposal) target {
	return target{tree: p.Evidence.Tree, sensitive: p.Flags.Sensitive}
}

func (filesystemKind) ruleName(t target) string {
	return "files_" + policy.KeyWord(strings.TrimPrefix(t.tree, "/"), 64)
}

func (filesystemKind) restore(p *Proposal, e *Evidence) {
	if depth := p.Evidence.FilesCut; depth > 0 {
		e.files.cut(depth)
	}
	for _, use := range p.Evidence.Files {
		e.files.put(use)
	}
}

func (filesystemKind) build(p *Proposal, e *Evidence) error {
	grants := e.files.grants()
	files := &policy.Filesystem{}
	for _, g := range grants {
		if g.Write {
			files.ReadWrite = append(files.ReadWrite, g.Path)
		} else {
			files.ReadOnly = append(files.ReadOnly, g.Path)
		}
	}
	if len(grants) == 0 {
		return errors.New("filesystem: allows nothing")
	}
	if err := (&policy.Policy{Version: 1, Filesystem: files}).Validate(); err != nil {
		return err
	}
	p.Filesystem, p.Digest = files, filesDigest(files)
	p.Flags.Sensitive = e.target.sensitive
	p.Flags.Widened, p.Flags.Truncated = e.files.depth != uncut, e.files.lost || e.truncated
	p.SecurityNotes, p.Confidence = e.fileNotes(grants, p.Flags), e.confidence()
	p.Rationale = fmt.Sprintf("Allow access to %d paths in %s.", len(grants), audit.Escape(e.target.tree, maxShownPath))
	if len(grants) == 1 {
		what := "read"
		if grants[0].Write {
			what = "read and write"
		}
		p.Rationale = fmt.Sprintf("Allow to %s %s.", what, audit.Escape(grants[0].Path, maxShownPath))
	}
	p.Evidence.Tree, p.Evidence.Files = e.target.tree, e.files.sorted()
	if e.files.depth != uncut {
		p.Evidence.FilesCut = e.files.depth
	}
	return nil
}

// FileGrants are the paths of a filesystem proposal beside what was accessed.
func (p *Proposal) FileGrants() []FileGrant {
	set := newFileSet(p.Evidence.Tree)
	for _, use := range p.Evidence.Files {
		set.uses[use.Path] = &use
	}
	return set.grants()
}

// filesDigest is what the digest of a rule is for paths.
func filesDigest(files *policy.Filesystem) string {
	data, err := json.Marshal(files)
	if err != nil {
		return "sha256:invalid"
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (filesystemKind) check(p *Proposal) error {
	switch {
	case p.Filesystem == nil || p.Rule != nil || !hasPaths(p.Filesystem) || p.Filesystem.IncludeWorkdir:
		return fmt.Errorf("proposal %s: filesystem: must have paths, and nothing else", p.ID)
	case !strings.HasPrefix(p.Evidence.Tree, "/"):
		return fmt.Errorf("proposal %s: evidence.tree: must be an absolute path", p.ID)
	case filesDigest(p.Filesystem) != p.Digest:
		return fmt.Errorf("proposal %s: digest: is not the filesystem's; the file was changed by hand", p.ID)
	}
	return nil
}

func hasPaths(f *policy.Filesystem) bool { return len(f.ReadOnly)+len(f.ReadWrite) > 0 }

func (filesystemKind) section(*Proposal) string { return "filesystem_policy" }

func (filesystemKind) checkEdit(_ *Proposal, edit Edit) error {
	switch f := edit.Filesystem; {
	case edit.Rule != nil:
		return errors.New("has rules, not only filesystem_policy")
	case f == nil || !hasPaths(f):
		return errors.New("has no paths in filesystem_policy: reject the proposal if it is not wanted")
	case f.IncludeWorkdir:
		return errors.New("has include_workdir, which is not proposed")
	}
	return nil
}

func (filesystemKind) digest(edit Edit) string { return filesDigest(edit.Filesystem) }

func (filesystemKind) add(l *ledger, learned *policy.Policy, p *Proposal, edit Edit) {
	l.add(learned, p, edit.Filesystem)
}

func (filesystemKind) remove(l *ledger, learned *policy.Policy, p *Proposal) { l.remove(learned, p) }

func (filesystemKind) inForce(p *Proposal, learned *policy.Policy) bool {
	f, granted := learned.Filesystem, p.granted().Filesystem
	return f != nil && contains(f.ReadOnly, granted.ReadOnly) && contains(f.ReadWrite, granted.ReadWrite)
}

func (filesystemKind) related(_, _ *Proposal) bool { return true }

// covered also holds for what is below a directory that the learned policy grants. A proposal of which an earlier
// state is in force still has to be looked at.
func (filesystemKind) covered(p *Proposal, learned *policy.Policy) bool {
	if p.InForce != nil || learned.Filesystem == nil {
		return false
	}
	rules := FileRules{ReadOnly: learned.Filesystem.ReadOnly, ReadWrite: learned.Filesystem.ReadWrite}
	allowed := func(paths []string, op FileOp) bool {
		return !slices.ContainsFunc(paths, func(p string) bool { return !rules.Allows(FileAccess{Path: p, Op: op}) })
	}
	return allowed(p.Filesystem.ReadOnly, OpRead) && allowed(p.Filesystem.ReadWrite, OpWrite)
}

// summary says how many paths are to be read, and written.
func (filesystemKind) summary(p *Proposal) Summary {
	var parts []string
	if n := len(p.Filesystem.ReadOnly); n > 0 {
		parts = append(parts, fmt.Sprintf("read %d", n))
	}
	if n := len(p.Filesystem.ReadWrite); n > 0 {
		parts = append(parts, fmt.Sprintf("write %d", n))
	}
	return Summary{Destinations: []string{p.Evidence.Tree}, Allows: []string{strings.Join(parts, ", ")},
		Subject: p.Rationale}
}

// Directories whose files are programs, or decide which programs run.
var programTrees = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/app", "/etc"}

// fileNotes are what a reviewer should be told besides the paths.
func (e *Evidence) fileNotes(grants []FileGrant, f Flags) []string {
	tree := e.target.tree
	n := &noteList{notes: []string{}}
	n.add(f.Widened, noteWidened)
	n.add(f.Truncated, noteTruncated)
	for _, g := range grants {
		home := homeOf(g.Path)
		n.add(secretOf(g.Path) != "", "'%s' holds keys or passwords.", secretOf(g.Path))
		n.add(within("/run/secrets", g.Path) || within("/var/run/secrets", g.Path),
			"'%s' has secrets that the engine mounts.", tree)
		n.add(home != "" && home == g.Path, "'%s' is granted whole, with secret folders in it such as .ssh.", g.Path)
		n.add(g.Write && slices.ContainsFunc(programTrees, func(dir string) bool { return within(dir, g.Path) }),
			"Write access in '%s': programs, or what configures them, may be replaced there.", tree)
		n.add(g.Write && zoneOf(g.Path) != "" && secretOf(g.Path) == "",
			"What is written in '%s' changes the kernel, or the whole system.", tree)
		n.add(strings.HasPrefix(g.Path, "/proc/self/"),
			"'%s' names another process each time: this grants that of the container's first process only.", g.Path)
		n.add(f.Sensitive, "'%s' is granted whole, for nothing less lets a file be made, removed or renamed in it: %s.",
			g.Path, riskOf(g.Path))
		n.add(!f.Sensitive && home == "" && depth(g.Path) <= 2 && g.Reason != "" && g.Reason != ReasonSystem,
			"'%s' is granted whole.", g.Path)
	}
	for _, use := range e.files.uses {
		n.add(use.Op&opsEntry != 0 && use.Reason == "",
			"What was made or removed in '%s' is granted by name, which works only where the image, or a volume, has it: "+
				"write access to the directory is not proposed.", path.Dir(use.Path))
	}
	return n.notes
}
