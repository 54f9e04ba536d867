// SPDX-License-Identifier: Apache-2.0

package wildcard

import "strings"

// Affix is the literal text that whatever a glob matches starts and ends with.
type Affix struct{ Prefix, suffix string }

// affixOf returns a glob's affix. The separator beside a `*` at the suffix's
// start is left out: `**` may stand for it.
func affixOf(pattern string, separator byte) Affix {
	first := strings.IndexAny(pattern, globMeta)
	if first < 0 {
		return Affix{Prefix: pattern}
	}
	last := strings.LastIndexAny(pattern, globMeta)
	suffix := pattern[last+1:]
	if pattern[last] == '*' {
		suffix = strings.TrimPrefix(suffix, string(rune(separator)))
	}
	return Affix{pattern[:first], suffix}
}

// AffixIndex finds what may match a text among many patterns: those whose
// affix is the text's. It costs at most one lookup for each pair of lengths that
// the affixes have, of which there are few even where patterns are many. Affixes
// of one length mostly end alike, such as in a separator, and a text that is cut
// elsewhere needs no lookup.
type AffixIndex[T any] struct {
	values  map[Affix][]T
	lengths []affixLength
}

// affixLength is the lengths of some affixes, and the bytes beside the middle
// that they leave out.
type affixLength struct {
	prefix, suffix int
	ends, begins   byteSet // of the prefixes, and the suffixes
}

// byteSet is a set of bytes, one bit each.
type byteSet [4]uint64

func (s *byteSet) add(b byte)      { s[b>>6] |= 1 << (b & 63) }
func (s *byteSet) has(b byte) bool { return s[b>>6]&(1<<(b&63)) != 0 }

func (x *AffixIndex[T]) Add(a Affix, value T) {
	if x.values == nil {
		x.values = map[Affix][]T{}
	}
	l := x.length(a)
	if a.Prefix != "" {
		l.ends.add(a.Prefix[l.prefix-1])
	}
	if a.suffix != "" {
		l.begins.add(a.suffix[0])
	}
	x.values[a] = append(x.values[a], value)
}

// length returns the entry for an affix's lengths.
func (x *AffixIndex[T]) length(a Affix) *affixLength {
	for i := range x.lengths {
		if l := &x.lengths[i]; l.prefix == len(a.Prefix) && l.suffix == len(a.suffix) {
			return l
		}
	}
	x.lengths = append(x.lengths, affixLength{prefix: len(a.Prefix), suffix: len(a.suffix)})
	return &x.lengths[len(x.lengths)-1]
}

// cut returns what a text has of the lengths. It returns false where no affix
// of these lengths can be the text's.
func (l *affixLength) cut(s string) (a Affix, ok bool) {
	if l.prefix > len(s) || l.suffix > len(s) {
		return a, false
	}
	if l.prefix > 0 && !l.ends.has(s[l.prefix-1]) || l.suffix > 0 && !l.begins.has(s[len(s)-l.suffix]) {
		return a, false
	}
	return Affix{s[:l.prefix], s[len(s)-l.suffix:]}, true
}

// Any reports whether match is true of one of the values for s.
func (x *AffixIndex[T]) Any(s string, match func(T) bool) bool {
	for i := range x.lengths {
		a, ok := x.lengths[i].cut(s)
		if !ok {
			continue
		}
		for _, value := range x.values[a] {
			if match(value) {
				return true
			}
		}
	}
	return false
}
