// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
)

// Bounds of a Set, whatever was added to it.
const (
	maxSize      = 2 << 20 // of all patterns, each counted with overhead, in bytes
	overhead     = 64
	maxGroups    = 256
	minLimit     = maxSize / maxGroups // what every group can have
	maxPathBytes = 4096                // what a path can be long
	maxMethod    = 32                  // length of a method, in bytes
)

// Set is what was seen of an endpoint: patterns of requests, with how often each was seen. The
// zero value is an empty set, ready to use. It is not safe for use by several
// goroutines at once.
//
// It is bounded. Paths that begin alike are a group, and a group that is too large is made coarser, which leaves
// the others alone. Of too many groups those with the least hash are kept. Either makes the
// set Truncated. How large a group may be, how coarse it is and which are kept are functions of the requests
// alone that only ever go one way as requests are added, so that order and merging
// cannot matter.
type Set struct {
	groups map[string]*group
	// halvings is how often the size that a group may have was halved, from maxSize.
	halvings int
	dropped  bool
	size     int // of all groups; what is over the bounds waits for fit until it is twice of them
}

// group is what was seen below one prefix.
type group struct {
	patterns map[entry]int // count
	size     int
	level    int // how coarse it is; 0 is as seen
}

// entry is a method and the pattern of a path: "/users/{int}".
type entry struct{ method, pattern string }

// Add takes in one request. The path must be a reading of a policy.Target; it is false for one
// that cannot be, and for a method that no rule can name or that is longer than 32 bytes.
func (s *Set) Add(method, path string) bool {
	if !isMethod(method) || !isSpelt(path) {
		return false
	}
	segments := abstract(path)
	s.put(method, segments, 1)
	return true
}

// Merge takes in all that the other set holds.
func (s *Set) Merge(o *Set) {
	o.fit()
	s.halvings = max(s.halvings, o.halvings)
	for name, g := range o.groups {
		for e, n := range g.patterns {
			s.put(e.method, e.segments(), n)
		}
		if mine := s.groups[name]; mine != nil {
			mine.coarsen(g.level)
		}
	}
	if o.dropped {
		s.drop()
	}
	s.fit()
}

// Truncated reports whether a bound was exceeded: templates may be wider than what was seen
// below some prefix, or lack some prefixes altogether.
func (s *Set) Truncated() bool {
	s.fit()
	for _, g := range s.groups {
		if g.level > 0 {
			return true
		}
	}
	return s.dropped
}

// Len is the number of patterns.
func (s *Set) Len() int {
	s.fit()
	n := 0
	for _, g := range s.groups {
		n += len(g.patterns)
	}
	return n
}

// Size is about how many bytes of memory the patterns take, half of it: each counts with its
// length and overhead. It costs nothing to ask, as it may be twice of what the set is bounded to.
func (s *Set) Size() int { return s.size }

func (s *Set) put(method string, segments []string, n int) {
	if s.groups == nil {
		s.groups = map[string]*group{}
	}
	name := groupOf(segments)
	g, ok := s.groups[name]
	if !ok {
		g = &group{patterns: map[entry]int{}}
		s.groups[name] = g
	}
	before := g.size
	g.put(method, segments, n)
	s.size += g.size - before
	if s.size > 2*maxSize || len(s.groups) > 2*maxGroups {
		s.fit()
	}
}

// fit brings the set within its bounds. It halves what a group may have until all fit together, and makes
// coarser what has more.
// A group that is coarse already had more than its share, so the whole share is counted for it.
func (s *Set) fit() {
	if len(s.groups) > maxGroups {
		s.drop()
	}
	for ; s.halvings < maxHalvings; s.halvings++ {
		limit, sum := maxSize>>s.halvings, 0
		for _, g := range s.groups {
			if g.level > 0 {
				sum += limit
			} else {
				sum += min(g.size, limit)
			}
		}
		if sum <= maxSize {
			break
		}
	}
	s.size = 0
	for _, g := range s.groups {
		for g.size > maxSize>>s.halvings && g.level < maxLevel {
			g.coarsen(g.level + 1)
		}
		s.size += g.size
	}
}

// maxHalvings leaves minLimit.
const maxHalvings = 8

// drop keeps the groups with the least hash, and only the least share for each, as what the
// dropped ones had is not known.
func (s *Set) drop() {
	s.dropped, s.halvings = true, maxHalvings
	if len(s.groups) <= maxGroups {
		return
	}
	hash := func(name string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(name))
		return h.Sum64()
	}
	names := slices.SortedFunc(maps.Keys(s.groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(hash(a), hash(b)), strings.Compare(a, b))
	})
	for _, name := range names[maxGroups:] {
		delete(s.groups, name)
	}
}

func (e entry) segments() []string { return strings.Split(e.pattern[1:], "/") }

// size counts a pattern for the bound. Making it coarser makes it no larger.
func (e entry) size() int {
	return overhead + len(e.method) + len(e.pattern) - (len(typeAny)-1)*strings.Count(e.pattern, typeAny)
}

func (g *group) put(method string, segments []string, n int) {
	e := entry{method, "/" + strings.Join(coarse(segments, g.level), "/")}
	if _, ok := g.patterns[e]; !ok {
		g.size += e.size()
	}
	g.patterns[e] = min(g.patterns[e]+n, math.MaxInt32)
}

func (g *group) coarsen(level int) {
	if level <= g.level {
		return
	}
	old := g.patterns
	g.patterns, g.size, g.level = make(map[entry]int), 0, level
	for e, n := range old {
		g.put(e.method, e.segments(), n)
	}
}

// Levels of coarseness. First what does not look like an API's own word becomes {any}, then
// whatever is below a depth that goes down with each level.
const (
	levelNames = 1 // with digits or separators, or of foreign words with them
	levelWords = 2 // all but words that APIs use
	maxLevel   = levelWords + maxDepth
)

// coarse is the pattern at a level, but never without what a path leads with.
func coarse(segments []string, level int) []string {
	if level == 0 {
		return segments
	}
	out := slices.Clone(segments)
	for i := leading(segments); i < len(out); i++ {
		s := out[i]
		switch {
		case s == "" || s == typeRest:
		case i >= maxDepth-max(0, level-levelWords),
			!isTyped(s) && !isAPIVersion(s) && (form(s) > 0.3 || level >= levelWords && form(s) > -1):
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
	original := slices.Clone(segments)
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
	shards(segments, original)
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

// isSpelt reports whether a path can be a reading of a policy.Target.
func isSpelt(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= maxPathBytes && all(path, func(c byte) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || strings.IndexByte("/-._~!$&'()*+,=:@%;", c) >= 0
	})
}

// isMethod reports whether a policy's rule can name a method: of the tokens of RFC 9110,
// section 5.6.2, it takes those that are in use.
func isMethod(s string) bool {
	return s != "" && len(s) <= maxMethod && all(s, func(c byte) bool {
		return isLower(c) || isUpper(c) || c == '-' || c == '_'
	})
}

// stored is a Set in JSON.
type stored struct {
	Patterns []storedPattern `json:"patterns"`
	// Levels has that of each group that was made coarser, by what its paths begin with.
	Levels   map[string]int `json:"levels,omitempty"`
	Halvings int            `json:"halvings,omitempty"`
	Dropped  bool           `json:"dropped,omitempty"`
}

type storedPattern struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Count  int    `json:"count"`
}

// MarshalJSON writes the set sorted: equal sets are equal bytes.
func (s *Set) MarshalJSON() ([]byte, error) {
	s.fit()
	out := stored{Patterns: []storedPattern{}, Halvings: s.halvings, Dropped: s.dropped}
	for name, g := range s.groups {
		for e, n := range g.patterns {
			out.Patterns = append(out.Patterns, storedPattern{e.method, e.pattern, n})
		}
		if g.level > 0 {
			if out.Levels == nil {
				out.Levels = map[string]int{}
			}
			out.Levels[name] = g.level
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
	if in.Halvings < 0 || in.Halvings > maxHalvings {
		return fmt.Errorf("halvings: %d is not between 0 and %d", in.Halvings, maxHalvings)
	}
	read := Set{halvings: in.Halvings}
	for _, p := range in.Patterns {
		if !isMethod(p.Method) || !isPattern(p.Path) || p.Count < 1 {
			return fmt.Errorf("patterns: %q %.100q with count %d is none of a request", p.Method, p.Path, p.Count)
		}
		read.put(p.Method, entry{pattern: p.Path}.segments(), p.Count)
	}
	for name, level := range in.Levels {
		if level < 1 || level > maxLevel {
			return fmt.Errorf("levels: %d is not between 1 and %d", level, maxLevel)
		}
		if g := read.groups[name]; g != nil {
			g.coarsen(level)
		}
	}
	if in.Dropped {
		read.drop()
	}
	read.fit()
	*s = read
	return nil
}

// isPattern reports whether abstract can have made the pattern.
func isPattern(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.Count(p, "/") > maxDepth+1 {
		return false
	}
	for _, s := range strings.Split(p[1:], "/") {
		before, kind, after := split(s)
		if kind != "" && !slices.Contains(types, kind) || len(before)+len(after) > maxSegment || !isSpelt("/"+before+after) {
			return false
		}
	}
	return true
}
