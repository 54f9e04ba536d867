// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
)

// FileGrant is a path that a policy should grant, and what for. A directory stands for its subtree:
// Landlock knows nothing narrower.
type FileGrant struct {
	Path     string
	Write    bool     // read_write, else read_only
	Observed []string // what was accessed: some of the paths, fit to show
	Reason   Reason   // why it is wider than what was accessed; empty: it is not
}

// accessRequest is what one access takes.
type accessRequest struct {
	path   string
	write  bool
	reason Reason
	// sensitive is for a guarded directory, which nothing less than itself would do for. It is a proposal of its own.
	sensitive bool
}

// Reason is why a grant is wider than an access.
type Reason string

// The reasons.
const (
	ReasonEntry   Reason = "entry"
	ReasonMade    Reason = "made"
	ReasonVaries  Reason = "varies"
	ReasonSystem  Reason = "system"
	ReasonList    Reason = "list"
	ReasonName    Reason = "name"
	ReasonBounded Reason = "bounded"
)

var reasonTexts = map[Reason]string{
	ReasonEntry:   "to make, remove or rename a file takes write access to its directory",
	ReasonMade:    "the directory was made by the workload: the nearest one that was there before",
	ReasonVaries:  "a name below it is another one each time",
	ReasonSystem:  "the files of a system are read as a whole",
	ReasonList:    "to list a directory takes read access to all below it",
	ReasonName:    "a name below it cannot be written in a policy",
	ReasonBounded: "there were too many different paths to list",
}

// Explain is the reason in a sentence.
func (r Reason) Explain() string { return cmp.Or(reasonTexts[r], string(r)) }

// UnmarshalText also reads the sentence, which was in proposals before there were names for the reasons. One that is
// not known stays as it is: the grant is wider, whatever for.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = Reason(text)
	for name, sentence := range reasonTexts {
		if sentence == string(text) {
			*r = name
		}
	}
	return nil
}

// requestFor is what an access takes. It is false for one that nothing can be granted for: a
// listing of /, a name that no policy can have.
func requestFor(a FileAccess) (accessRequest, bool) {
	p := anyProcess(path.Clean(a.Path))
	if !strings.HasPrefix(p, "/") || p == "/" || len(p) > maxPathBytes || a.Op == 0 {
		return accessRequest{}, false
	}
	if a.Op&opsWrite != 0 && policy.ProcessMemory(p) {
		return accessRequest{}, false // no policy may have it
	}
	n := accessRequest{path: p, write: a.Op&opsWrite != 0}
	if a.Op&opsEntry != 0 {
		return n.entry(a.Existing).named()
	}
	switch dir := a.madeBelow(); {
	case dir == "":
	case guarded(dir):
		return accessRequest{path: dir, write: n.write, reason: ReasonMade, sensitive: true}.named()
	case zoneOf(p) == "":
		// Named by itself it would have nothing to name in the next run, and to make it took this anyway.
		return accessRequest{path: dir, write: n.write, reason: ReasonMade}.folded().named()
	}
	if dir := expressible(p); dir != p {
		return accessRequest{path: dir, write: n.write, reason: ReasonName}.named()
	}
	if a.Op&OpReadDir != 0 {
		n.reason = ReasonList
	}
	if !n.write {
		for _, tree := range systemTrees {
			if within(tree, p) && zoneOf(p) == "" {
				return accessRequest{path: tree, reason: ReasonSystem}, true
			}
		}
		if within("/proc", p) {
			return accessRequest{path: "/proc", reason: ReasonSystem}, true
		}
	}
	return n.folded(), true
}

// madeBelow is the nearest directory above what the workload made itself that was there before it. It is
// empty for what was there.
func (a *FileAccess) madeBelow() string {
	dir, p := path.Clean(a.Existing), path.Clean(a.Path)
	if !strings.HasPrefix(dir, "/") || dir == p || dir == "/" || !within(dir, p) {
		return ""
	}
	return dir
}

// named is false for a request that no policy can have, or should.
func (n accessRequest) named() (accessRequest, bool) {
	ok := n.path != "/" && expressible(n.path) == n.path && (n.reason != ReasonName || !guarded(n.path))
	return n, ok
}

// expressible is the longest part of a path that can be written in a policy, and shown, as it is.
func expressible(p string) string {
	at := 0
	for name := range strings.SplitSeq(p[1:], "/") {
		if audit.Escape(name, maxPathBytes) != name {
			return path.Clean("/" + p[:at])
		}
		at += 1 + len(name)
	}
	return p
}

// entry is for a change to the directory that the path is in.
func (n accessRequest) entry(existing string) accessRequest {
	dir, reason := path.Dir(n.path), ReasonEntry
	if existing = path.Clean(existing); strings.HasPrefix(existing, "/") && existing != dir && within(existing, dir) {
		dir, reason = existing, ReasonMade
	}
	if dir == "/" {
		return n // exactly, for what that is worth: all there is is never granted
	}
	if guarded(dir) {
		// What is made by a name of its own, or put in another's place by way of a name that nobody has again,
		// takes the directory.
		return accessRequest{path: dir, write: true, reason: reason, sensitive: true}
	}
	return accessRequest{path: dir, write: true, reason: reason}.folded()
}

// guarded reports whether a directory must not be granted for what is in it.
func guarded(dir string) bool { return slices.Contains(guardedDirs, dir) || zoneOf(dir) != "" }

// folded goes up to where the names stay the same, unless that is too far up.
func (n accessRequest) folded() accessRequest {
	if zoneOf(n.path) != "" {
		return n
	}
	at := 0
	for name := range strings.SplitSeq(n.path[1:], "/") {
		if varies(name) {
			dir := path.Clean(n.path[:at])
			if depth(dir) < 2 || guarded(dir) || dir == homeOf(dir) {
				return n
			}
			return accessRequest{path: dir, write: n.write, reason: ReasonVaries}
		}
		at += 1 + len(name)
	}
	return n
}

// anyProcess replaces a process id in /proc, which is another one each time.
func anyProcess(p string) string {
	rest, ok := strings.CutPrefix(p, "/proc/")
	if !ok {
		return p
	}
	pid, below, _ := strings.Cut(rest, "/")
	if !allDigits(pid) {
		return p
	}
	if tid, more, ok := strings.Cut(strings.TrimPrefix(below, "task/"), "/"); ok && strings.HasPrefix(below, "task/") &&
		allDigits(tid) {
		below = more
	}
	return path.Join("/proc/self", below)
}
