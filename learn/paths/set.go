package paths

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
)

// Bounds of a Set, whatever was added to it. The patterns are divided into groups by what
// their paths begin with, so that a flood below one does not coarsen the others.
const (
	maxPatterns  = 16384   // of all groups together; each gets an equal part of it
	maxBytes     = 1 << 20 // their length together, divided in the same way
	maxGroups    = 256
	maxPathBytes = 4096 // what a canonical path can be long
	maxMethod    = 32   // length of a method, in bytes
)

// Set is what was seen of an endpoint: patterns of requests, with how often each was seen. The
// zero value is an empty set, ready to use. It is not safe for use by several
// goroutines at once.
//
// It is bounded. A group of paths that has too many patterns is cut at a depth: segments
// from there on stop being told apart. Of too many groups those with the least hash are
// kept. Either makes the set Truncated. Both bounds are functions of the requests alone: a
// greater set never has a greater depth, and a group that is dropped would be
// dropped from any greater set, so that order and merging cannot matter.
type Set struct {
	groups  map[string]*group
	dropped bool
}

// group is what was seen below one prefix.
type group struct {
	patterns map[entry]int // count
	bytes    int
	depth    int // segments from here on are {any}; uncut
}

// entry is a method and the pattern of a path: "/users/{int}".
type entry struct{ method, pattern string }

const uncut = math.MaxInt

// Add takes in one request. The path must be canonical, without its query; it is false for one
// that cannot be, and for a method that is no token of RFC 9110, section 5.6.2, or longer
// than 32 bytes.
func (s *Set) Add(method, path string) bool {
	if !isMethod(method) || !isCanonical(path) {
		return false
	}
	segments := abstract(path)
	s.put(method, segments, 1)
	return true
}

// Merge takes in all that the other set holds.
func (s *Set) Merge(o *Set) {
	for _, g := range o.groups {
		for e, n := range g.patterns {
			s.put(e.method, strings.Split(e.pattern[1:], "/"), n)
		}
		if g.depth != uncut { // not to be seen from patterns that are short
			for e := range g.patterns {
				if mine := s.groups[groupOf(strings.Split(e.pattern[1:], "/"))]; mine != nil {
					mine.cut(g.depth)
				}
				break
			}
		}
	}
	s.dropped = s.dropped || o.dropped
}

// Truncated reports whether a bound was exceeded: templates may be wider than what was seen
// below some prefix, or lack some prefixes altogether.
func (s *Set) Truncated() bool {
	for _, g := range s.groups {
		if g.depth != uncut {
			return true
		}
	}
	return s.dropped
}

// Len is the number of patterns.
func (s *Set) Len() int {
	n := 0
	for _, g := range s.groups {
		n += len(g.patterns)
	}
	return n
}

func (s *Set) put(method string, segments []string, n int) {
	if s.groups == nil {
		s.groups = map[string]*group{}
	}
	name := groupOf(segments)
	g, ok := s.groups[name]
	if !ok {
		g = &group{patterns: map[entry]int{}, depth: uncut}
		s.groups[name] = g
	}
	g.put(method, segments, n)
	if !ok {
		s.limitGroups()
	}
	limit := share(len(s.groups))
	if !ok && limit != share(len(s.groups)-1) {
		for _, g := range s.groups {
			g.fit(limit)
		}
		return
	}
	g.fit(limit)
}

// share is the part of the bounds that each of n groups gets: 1/n, with n a power of two.
func share(n int) int {
	part := 1
	for part < n {
		part *= 2
	}
	return part
}

func (s *Set) limitGroups() {
	if len(s.groups) <= maxGroups {
		return
	}
	var last string
	var greatest uint64
	for name := range s.groups {
		h := fnv.New64a()
		h.Write([]byte(name))
		if sum := h.Sum64(); sum > greatest || sum == greatest && name > last {
			last, greatest = name, sum
		}
	}
	delete(s.groups, last)
	s.dropped = true
}

func (g *group) put(method string, segments []string, n int) {
	e := entry{method, "/" + strings.Join(cut(segments, g.depth), "/")}
	if _, ok := g.patterns[e]; !ok {
		g.bytes += e.size()
	}
	g.patterns[e] = min(g.patterns[e]+n, math.MaxInt32)
}

// size is the length of a pattern for the bound. Cutting makes it no longer.
func (e entry) size() int {
	return len(e.method) + len(e.pattern) - (len(typeAny)-1)*strings.Count(e.pattern, typeAny)
}

// fit cuts the group at the greatest depth that makes it fit its part of the bounds.
func (g *group) fit(part int) {
	if len(g.patterns) <= maxPatterns/part && g.bytes <= maxBytes/part {
		return
	}
	depth := 0
	for e := range g.patterns {
		depth = max(depth, strings.Count(e.pattern, "/"))
	}
	for depth = min(depth, g.depth) - 1; depth > 0 && (len(g.patterns) > maxPatterns/part || g.bytes > maxBytes/part); depth-- {
		g.cut(depth)
	}
}

func (g *group) cut(depth int) {
	if depth >= g.depth {
		return
	}
	old := g.patterns
	g.patterns, g.bytes, g.depth = make(map[entry]int), 0, depth
	for e, n := range old {
		g.put(e.method, strings.Split(e.pattern[1:], "/"), n)
	}
}

// cut replaces the segments from depth on, but never those that a path leads with.
func cut(segments []string, depth int) []string {
	depth = max(depth, leading(segments))
	if depth >= len(segments) {
		return segments
	}
	out := slices.Clone(segments)
	for i := depth; i < len(out); i++ {
		if out[i] != typeRest && (out[i] != "" || i < len(out)-1) {
			out[i] = typeAny
		}
	}
	return out
}

// abstract is the pattern of a path, as segments.
func abstract(path string) []string {
	segments := strings.Split(path[1:], "/")
	if len(segments) > maxDepth {
		segments = append(segments[:maxDepth], typeRest)
	}
	first := true // everything before was a version
	for i, s := range segments {
		switch {
		case s == typeRest:
		case first && isLeadingVersion(s):
		default:
			segments[i] = typed(s)
			first = false
		}
	}
	return segments
}

// isLeadingVersion recognises /1/, /2010-04-01/ and /api/v2/ before everything else.
func isLeadingVersion(s string) bool {
	return isAPIVersion(s) || allDigits(s) && len(s) <= 4 || isDate(s) && len(s) <= len("2006-01-02") || s == "api"
}

// leading is the number of segments that a path begins with and that are never generalised
// for what their siblings are: to an API's version, and the first after it.
func leading(segments []string) int {
	n := 1
	for i, s := range segments[:min(len(segments), maxLeading)] {
		if isAPIVersion(s) || s == "api" || i == n-1 && isLeadingVersion(s) {
			n = i + 2
		}
	}
	return min(n, len(segments))
}

// maxLeading is how deep a version is looked for: /rest/api/v2/.
const maxLeading = 4

func groupOf(segments []string) string {
	return strings.Join(segments[:leading(segments)], "/")
}

// isCanonical reports whether a path can come from policy.CanonicalTarget.
func isCanonical(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= maxPathBytes && all(path, func(c byte) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || strings.IndexByte("/-._~!$&'()*+,=:@%", c) >= 0
	})
}

func isMethod(s string) bool {
	return s != "" && len(s) <= maxMethod && all(s, func(c byte) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || strings.IndexByte("!#$%&'+-.^_`|~", c) >= 0
	})
}

// stored is a Set in JSON.
type stored struct {
	Patterns []storedPattern `json:"patterns"`
	// Cut has the depth of each group that was cut, by what its paths begin with.
	Cut     map[string]int `json:"cut,omitempty"`
	Dropped bool           `json:"dropped,omitempty"`
}

type storedPattern struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Count  int    `json:"count"`
}

// MarshalJSON writes the set sorted: equal sets are equal bytes.
func (s *Set) MarshalJSON() ([]byte, error) {
	out := stored{Patterns: []storedPattern{}, Dropped: s.dropped}
	for name, g := range s.groups {
		for e, n := range g.patterns {
			out.Patterns = append(out.Patterns, storedPattern{e.method, e.pattern, n})
		}
		if g.depth != uncut {
			if out.Cut == nil {
				out.Cut = map[string]int{}
			}
			out.Cut[name] = g.depth
		}
	}
	slices.SortFunc(out.Patterns, func(a, b storedPattern) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Method, b.Method)
	})
	return json.Marshal(out)
}

// UnmarshalJSON replaces the set by one that MarshalJSON wrote. The bounds hold for what it
// reads, too; a pattern that no request has is an error.
func (s *Set) UnmarshalJSON(b []byte) error {
	var in stored
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*s = Set{dropped: in.Dropped}
	for _, p := range in.Patterns {
		if !isMethod(p.Method) || !isPattern(p.Path) || p.Count < 1 {
			return fmt.Errorf("patterns: %q %.100q with count %d is none of a request", p.Method, p.Path, p.Count)
		}
		s.put(p.Method, strings.Split(p.Path[1:], "/"), p.Count)
	}
	for name, depth := range in.Cut {
		if depth < 1 {
			return errors.New("cut: a depth must be at least 1")
		}
		if g := s.groups[name]; g != nil {
			g.cut(depth)
		}
	}
	return nil
}

// isPattern reports whether abstract can have made the pattern.
func isPattern(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.Count(p, "/") > maxDepth+1 {
		return false
	}
	for _, s := range strings.Split(p[1:], "/") {
		before, kind, after := split(s)
		if kind != "" && !slices.Contains(types, kind) || len(before)+len(after) > maxSegment || !isCanonical("/"+before+after) {
			return false
		}
	}
	return true
}
