package learn

import (
	"maps"
	"slices"
	"strings"
)

// pathSet is a bounded set of patterns. When there are too many it is cut at a depth: what
// is deeper than k segments becomes `first/k/segments/**`, with the greatest k that makes it
// fit. A set that was cut shows its k, and a greater set never needs a greater k;
// so the same paths give the same set in whatever order, and portions, they came.
type pathSet struct {
	patterns map[string]struct{}
	bytes    int // their length together
	depth    int // where the set was cut; uncut
}

// uncut is the depth of a set that was not cut: no path has that many segments.
const uncut = maxPathBytes

func newPathSet() *pathSet { return &pathSet{patterns: map[string]struct{}{}, depth: uncut} }

// add puts a pattern in and reports whether the set changed.
func (s *pathSet) add(p string) bool {
	changed := false
	if d := depthOf(p); d < s.depth { // it comes from a set that was cut
		s.cut(d)
		changed = true
	}
	p = cut(p, s.depth)
	if _, ok := s.patterns[p]; ok {
		return changed
	}
	s.patterns[p] = struct{}{}
	s.bytes += len(p)
	s.fit()
	return true
}

func (s *pathSet) fits() bool {
	return len(s.patterns) <= maxPatterns && s.bytes <= maxPatternBytes
}

func (s *pathSet) fit() {
	if s.fits() {
		return
	}
	deepest := 0
	for p := range s.patterns {
		deepest = max(deepest, strings.Count(p, "/"))
	}
	for k := min(deepest, s.depth) - 1; !s.fits(); k-- {
		s.cut(k)
	}
}

func (s *pathSet) cut(depth int) {
	kept := make(map[string]struct{}, len(s.patterns))
	s.depth, s.bytes = depth, 0
	for p := range s.patterns {
		p = cut(p, depth)
		if _, ok := kept[p]; !ok {
			kept[p] = struct{}{}
			s.bytes += len(p)
		}
	}
	s.patterns = kept
}

func (s *pathSet) sorted() []string { return slices.Sorted(maps.Keys(s.patterns)) }

// depthOf is the depth at which a pattern was cut.
func depthOf(p string) int {
	if p == anyPath {
		return 0
	}
	if prefix, ok := strings.CutSuffix(p, "/**"); ok {
		return strings.Count(prefix, "/")
	}
	return uncut
}

// cut replaces what is below the first depth segments. A slash at the end is not a segment.
func cut(p string, depth int) string {
	if depth <= 0 || p == anyPath {
		return anyPath
	}
	end := 0 // after the segments that stay
	for range depth {
		i := strings.IndexByte(p[end+1:], '/')
		if i < 0 {
			return p
		}
		end += 1 + i
	}
	if end == len(p)-1 {
		return p
	}
	return p[:end] + "/**"
}

// requests are the patterns seen for each method.
type requests map[string]*pathSet

// add reports whether anything changed.
func (r requests) add(method, pattern string) bool {
	if _, joined := r[anyMethod]; joined {
		method = anyMethod
	} else if method == anyMethod {
		r.join()
	}
	set, ok := r[method]
	if !ok {
		set = newPathSet()
		r[method] = set
	}
	changed := set.add(pattern)
	if len(r) > maxMethods {
		r.join()
	}
	return changed
}

// join gives up telling methods apart.
func (r requests) join() {
	joined := newPathSet()
	for method, set := range r {
		for p := range set.patterns {
			joined.add(p)
		}
		delete(r, method)
	}
	r[anyMethod] = joined
}

func (r requests) merge(o requests) {
	for method, set := range o {
		for p := range set.patterns {
			r.add(method, p)
		}
	}
}

// widened reports whether a bound has made the patterns wider than what was seen.
func (r requests) widened() bool {
	for method, set := range r {
		if method == anyMethod || set.depth != uncut {
			return true
		}
	}
	return false
}
