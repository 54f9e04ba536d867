// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
)

// addFile takes in one access, by what it needs.
func (e *Evidence) addFile(run Run, n need, a FileAccess) {
	e.addHit(run, a.Time.UTC(), a.Permissive, "") // the programs of a tree are several
	e.files.add(n, a)
	e.addReason(audit.Escape(strings.ReplaceAll(a.Reason, a.Path, e.target.tree), maxShownReason), 1)
}

// restoreFiles takes what a proposal stored back in.
func (e *Evidence) restoreFiles(stored *ProposalEvidence) {
	if stored.FilesCut > 0 {
		e.files.cut(stored.FilesCut)
	}
	for _, use := range stored.Files {
		e.files.put(use)
	}
}

func newFileProposal(e *Evidence) (Proposal, bool) {
	p := Proposal{
		Version: ProposalVersion, ID: e.id, Policy: e.policy, Kind: KindFilesystem,
		Status: StatusPending, RuleName: e.ruleName(),
	}
	return p, p.describeFiles(e) == nil
}

// describeFiles is describe for files. The error is for paths that no policy can have.
func (p *Proposal) describeFiles(e *Evidence) error {
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
	p.SecurityNotes, p.Confidence = e.fileNotes(grants), e.confidence()
	p.Rationale = fmt.Sprintf("Allow access to %d paths in %s.", len(grants), audit.Escape(e.target.tree, maxShownPath))
	if len(grants) == 1 {
		what := "read"
		if grants[0].Write {
			what = "read and write"
		}
		p.Rationale = fmt.Sprintf("Allow to %s %s.", what, audit.Escape(grants[0].Path, maxShownPath))
	}
	p.describeEvidence(e)
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

// checkFiles is check for the kind filesystem.
func (p *Proposal) checkFiles() error {
	switch {
	case p.Filesystem == nil || p.Rule != nil || len(p.Filesystem.ReadOnly)+len(p.Filesystem.ReadWrite) == 0 || p.Filesystem.IncludeWorkdir:
		return fmt.Errorf("proposal %s: filesystem: must have paths, and nothing else", p.ID)
	case !strings.HasPrefix(p.Evidence.Tree, "/"):
		return fmt.Errorf("proposal %s: evidence.tree: must be an absolute path", p.ID)
	case filesDigest(p.Filesystem) != p.Digest:
		return fmt.Errorf("proposal %s: digest: is not the filesystem's; the file was changed by hand", p.ID)
	}
	return nil
}

// Directories whose files are programs, or decide which programs run.
var programTrees = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/app", "/etc"}

// fileNotes are what a reviewer should be told besides the paths.
func (e *Evidence) fileNotes(grants []FileGrant) []string {
	tree := e.target.tree
	n := &noteList{notes: []string{}}
	n.add(e.files.depth != uncut, noteWidened)
	n.add(e.files.lost || e.truncated, noteTruncated)
	for _, g := range grants {
		home := homeOf(g.Path)
		n.add(secretOf(g.Path) != "", "'%s' holds keys or passwords.", secretOf(g.Path))
		n.add(within("/run/secrets", g.Path) || within("/var/run/secrets", g.Path), "'%s' has secrets that the engine mounts.", tree)
		n.add(home != "" && home == g.Path, "'%s' is granted whole, with secret folders in it such as .ssh.", g.Path)
		n.add(g.Write && slices.ContainsFunc(programTrees, func(dir string) bool { return within(dir, g.Path) }),
			"Write access in '%s': programs, or what configures them, may be replaced there.", tree)
		n.add(g.Write && zoneOf(g.Path) != "" && secretOf(g.Path) == "", "What is written in '%s' changes the kernel, or the whole system.", tree)
		n.add(strings.HasPrefix(g.Path, "/proc/self/"), "'%s' names another process each time: this grants that of the container's first process only.", g.Path)
		n.add(home == "" && depth(g.Path) == 1 && g.Why != "" && g.Why != whySystem, "'%s' is granted whole.", g.Path)
	}
	for _, use := range e.files.uses {
		n.add(use.Op&opsEntry != 0 && use.Why == "", "What was made or removed in '%s' is granted by name, which works only where the image, or a volume, has it: "+
			"write access to the directory is not proposed.", tree)
	}
	return n.notes
}
