package policy

import "strings"

// affix is the literal text that whatever a glob matches starts and ends with.
type affix struct{ prefix, suffix string }

// affixOf returns a glob's affix. The separator beside a `*` at the suffix's
// start is left out: `**` may stand for it.
func affixOf(pattern string, separator byte) affix {
	first := strings.IndexAny(pattern, globMeta)
	if first < 0 {
		return affix{prefix: pattern}
	}
	last := strings.LastIndexAny(pattern, globMeta)
	suffix := pattern[last+1:]
	if pattern[last] == '*' {
		suffix = strings.TrimPrefix(suffix, string(rune(separator)))
	}
	return affix{pattern[:first], suffix}
}

// affixIndex finds what may match a text among many patterns: those whose
// affix is the text's. It costs one lookup for each pair of lengths that the
// affixes have, of which there are few even where patterns are many.
type affixIndex[T any] struct {
	values  map[affix][]T
	lengths []affixLength
}

type affixLength struct{ prefix, suffix int }

func (x *affixIndex[T]) add(a affix, value T) {
	if x.values == nil {
		x.values = map[affix][]T{}
	}
	if length := (affixLength{len(a.prefix), len(a.suffix)}); len(x.values[a]) == 0 && !x.has(length) {
		x.lengths = append(x.lengths, length)
	}
	x.values[a] = append(x.values[a], value)
}

func (x *affixIndex[T]) has(length affixLength) bool {
	for _, l := range x.lengths {
		if l == length {
			return true
		}
	}
	return false
}

// any reports whether match is true of one of the values for s.
func (x *affixIndex[T]) any(s string, match func(T) bool) bool {
	for _, l := range x.lengths {
		if l.prefix > len(s) || l.suffix > len(s) {
			continue
		}
		for _, value := range x.values[affix{s[:l.prefix], s[len(s)-l.suffix:]}] {
			if match(value) {
				return true
			}
		}
	}
	return false
}
