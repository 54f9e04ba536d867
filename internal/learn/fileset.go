// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
)

// Bounds of the paths of one tree. What exceeds them is not left out but granted by its
// directory; only in guarded directories, where that must not be, it is left out.
const (
	maxFiles        = 256
	maxFileBytes    = 128 << 10
	maxFileSamples  = 4
	maxFileBinaries = 4
)

// fileSet is what was accessed in one tree. Adding to it is commutative and associative, as for a
// pathSet: the depth at which it was cut depends on the paths alone.
type fileSet struct {
	tree  string
	uses  map[string]*FileUse
	bytes int
	depth int  // what is deeper is granted by its directory of that depth; uncut
	lost  bool // some paths were left out
}

// FileUse is what was done to one path, or below it: the evidence of a grant.
type FileUse struct {
	Path     string   `json:"path"`
	Write    bool     `json:"write,omitempty"`
	Op       FileOp   `json:"op"`
	Count    int      `json:"count"`
	Reason   Reason   `json:"why,omitempty"`
	Binaries []string `json:"binaries"`          // some of those that did it
	Samples  []string `json:"samples,omitempty"` // some of the paths, where they are not Path
}

// uncut is the depth of a set that was not cut: no path has that many names.
const uncut = maxPathBytes

func newFileSet(tree string) *fileSet {
	return &fileSet{tree: tree, uses: map[string]*FileUse{}, depth: uncut}
}

func (s *fileSet) add(n accessRequest, a FileAccess) {
	use := FileUse{Path: n.path, Write: n.write, Op: a.Op, Count: 1, Reason: n.reason}
	if b := audit.Escape(a.Binary, maxShownName); b != "" {
		use.Binaries = []string{b}
	}
	if sample := audit.Escape(Mask(a.Path), maxShownPath); sample != n.path {
		use.Samples = []string{sample}
	}
	s.put(use)
}

func (s *fileSet) put(use FileUse) {
	if strings.Count(use.Path, "/") > s.depth {
		use.Samples = union(use.Samples, []string{audit.Escape(Mask(use.Path), maxShownPath)}, maxFileSamples)
		use.Path, use.Reason = directory(use.Path, s.depth), ReasonBounded
	}
	old, ok := s.uses[use.Path]
	if !ok {
		s.uses[use.Path] = &use
		s.bytes += len(use.Path)
		s.fit()
		return
	}
	old.Write = old.Write || use.Write
	old.Op |= use.Op
	old.Count += use.Count
	old.Reason = max(old.Reason, use.Reason)
	old.Binaries = union(old.Binaries, use.Binaries, maxFileBinaries)
	old.Samples = union(old.Samples, use.Samples, maxFileSamples)
}

// union is the least of two sorted lists.
func union(a, b []string, limit int) []string {
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
	return all[:min(len(all), limit)]
}

// directory is the first names of a path.
func directory(p string, names int) string {
	for i := range len(p) {
		if p[i] == '/' {
			if names == 0 {
				return p[:i]
			}
			names--
		}
	}
	return p
}

func (s *fileSet) fits() bool { return len(s.uses) <= maxFiles && s.bytes <= maxFileBytes }

func (s *fileSet) fit() {
	if s.fits() {
		return
	}
	if zoneOf(s.tree) != "" || guarded(s.tree) {
		for !s.fits() {
			greatest := greatestKey(s.uses, cmp.Compare)
			s.bytes -= len(greatest)
			delete(s.uses, greatest)
			s.lost = true
		}
		return
	}
	deepest := 0
	for p := range s.uses {
		deepest = max(deepest, strings.Count(p, "/"))
	}
	for k := min(deepest, s.depth) - 1; !s.fits() && k >= depth(s.tree); k-- {
		s.cut(k)
	}
}

func (s *fileSet) cut(depth int) {
	if depth >= s.depth {
		return
	}
	old := s.uses
	s.uses, s.bytes, s.depth = map[string]*FileUse{}, 0, depth
	for _, p := range slices.Sorted(maps.Keys(old)) {
		s.put(*old[p])
	}
}

func (s *fileSet) merge(o *fileSet) {
	s.cut(o.depth)
	s.lost = s.lost || o.lost
	for _, use := range o.uses {
		s.put(*use)
	}
}

// sorted lists the uses by path.
func (s *fileSet) sorted() []FileUse {
	list := make([]FileUse, 0, len(s.uses))
	for _, use := range s.uses {
		list = append(list, *use)
	}
	slices.SortFunc(list, func(a, b FileUse) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

// grants leaves out what lies below another grant. A file among secrets is named though a
// directory above it is granted: whoever approves that should see it.
func (s *fileSet) grants() []FileGrant {
	uses := s.sorted()
	var grants []FileGrant
	for _, use := range uses {
		above := func(g FileGrant) bool {
			return within(g.Path, use.Path) && (g.Write || !use.Write)
		}
		if i := slices.IndexFunc(grants, above); i >= 0 && secretOf(use.Path) == "" {
			grants[i].Observed = union(grants[i].Observed, use.observed(), maxFileSamples)
			continue
		}
		grants = append(grants, FileGrant{Path: use.Path, Write: use.Write, Observed: use.observed(), Reason: use.Reason})
	}
	return grants
}

func (u *FileUse) observed() []string {
	if len(u.Samples) > 0 {
		return u.Samples
	}
	return []string{audit.Escape(u.Path, maxShownPath)}
}
