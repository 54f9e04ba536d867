// SPDX-License-Identifier: Apache-2.0

package learn

import (
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
	Why      string   // why it is wider than what was accessed; empty: it is not
}

// need is what one access takes.
type need struct {
	path  string
	write bool
	why   string // as FileGrant.Why
}

// Why a grant is wider than an access.
const (
	whyEntry   = "to make, remove or rename a file takes write access to its directory"
	whyMade    = "the directory was made by the workload: the nearest one that was there before"
	whyVaries  = "a name below it is another one each time"
	whySystem  = "the files of a system are read as a whole"
	whyList    = "to list a directory takes read access to all below it"
	whyName    = "a name below it cannot be written in a policy"
	whyBounded = "there were too many different paths to list"
)

// needOf is what an access takes. It is false for one that nothing can be granted for: a
// listing of /, a name that no policy can have.
func needOf(a FileAccess) (need, bool) {
	p := anyProcess(path.Clean(a.Path))
	if !strings.HasPrefix(p, "/") || p == "/" || len(p) > maxPathBytes || a.Op == 0 {
		return need{}, false
	}
	if a.Op&opsWrite != 0 && policy.ProcessMemory(p) {
		return need{}, false // no policy may have it
	}
	n := need{path: p, write: a.Op&opsWrite != 0}
	if a.Op&opsEntry != 0 {
		return n.entry(a.Existing).named()
	}
	if dir := a.madeIn(); dir != "" && zoneOf(p) == "" {
		// Named by itself it would have nothing to name in the next run, and to make it took this anyway.
		return need{path: dir, write: n.write, why: whyMade}.folded().named()
	}
	if dir := speakable(p); dir != p {
		return need{path: dir, write: n.write, why: whyName}.named()
	}
	if a.Op&OpReadDir != 0 {
		n.why = whyList
	}
	if !n.write {
		for _, tree := range systemTrees {
			if within(tree, p) && zoneOf(p) == "" {
				return need{path: tree, why: whySystem}, true
			}
		}
		if within("/proc", p) {
			return need{path: "/proc", why: whySystem}, true
		}
	}
	return n.folded(), true
}

// madeIn is the nearest directory above what the workload made itself that was there before it. It is
// empty for what was there, and where the directory must not be granted for what is in it.
func (a *FileAccess) madeIn() string {
	dir, p := path.Clean(a.Existing), path.Clean(a.Path)
	if !strings.HasPrefix(dir, "/") || dir == p || !within(dir, p) || guarded(dir) {
		return ""
	}
	return dir
}

// named is false for a need that no policy can have, or should.
func (n need) named() (need, bool) {
	ok := n.path != "/" && speakable(n.path) == n.path && (n.why != whyName || !guarded(n.path))
	return n, ok
}

// speakable is the longest part of a path that can be written in a policy, and shown, as it is.
func speakable(p string) string {
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
func (n need) entry(existing string) need {
	dir, why := path.Dir(n.path), whyEntry
	if existing = path.Clean(existing); strings.HasPrefix(existing, "/") && existing != dir && within(existing, dir) {
		dir, why = existing, whyMade
	}
	if guarded(dir) {
		return n // exactly, for what that is worth
	}
	return need{path: dir, write: true, why: why}.folded()
}

// guarded reports whether a directory must not be granted for what is in it.
func guarded(dir string) bool { return slices.Contains(guardedDirs, dir) || zoneOf(dir) != "" }

// folded goes up to where the names stay the same, unless that is too far up.
func (n need) folded() need {
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
			return need{path: dir, write: n.write, why: whyVaries}
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
	if tid, more, ok := strings.Cut(strings.TrimPrefix(below, "task/"), "/"); ok && strings.HasPrefix(below, "task/") && allDigits(tid) {
		below = more
	}
	return path.Join("/proc/self", below)
}
