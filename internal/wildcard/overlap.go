// SPDX-License-Identifier: Apache-2.0

package wildcard

import "strings"

// Suffix returns the literal labels at the end.
func (p HostPattern) Suffix() string {
	first := len(p.labels)
	for first > 0 && !strings.Contains(p.labels[first-1], "*") {
		first--
	}
	return strings.Join(p.labels[first:], ".")
}

// Overlaps reports whether some name matches both patterns.
func (p HostPattern) Overlaps(other HostPattern) bool {
	i, j := len(p.labels), len(other.labels)
	for i > 0 && j > 0 {
		i, j = i-1, j-1
		if !Overlap(p.labels[i], other.labels[j]) {
			return false
		}
	}
	switch {
	case p.many && other.many, p.many && j > 0, other.many && i > 0:
		return true
	default:
		return i == 0 && j == 0 && !p.many && !other.many
	}
}

// PathsOverlap reports whether two endpoints' paths are as specific, and some
// request's path matches both.
func PathsOverlap(a, b string) bool {
	if a == b {
		return true
	}
	p, errP := CompileEndpointPath(a)
	q, errQ := CompileEndpointPath(b)
	if errP != nil || errQ != nil || p.Specificity != q.Specificity {
		return false
	}
	if p.Specificity == 0 {
		return true
	}
	for _, x := range p.alternatives() {
		for _, y := range q.alternatives() {
			if Overlap(x, y) {
				return true
			}
		}
	}
	return false
}

// alternatives are patterns of `*` and `?` that together match the same.
func (p EndpointPath) alternatives() []string {
	if p.expr == nil && p.subtree != "" {
		return []string{p.subtree, p.subtree + "/*"}
	}
	return []string{p.Text}
}

// patternsOverlap reports whether some text matches both patterns, in which `*`
// is any text and `?` any character.
func Overlap(a, b string) bool {
	// reach[j]: the part of a so far and b[:j] have a text in common.
	reach := make([]bool, len(b)+1)
	reach[0] = true
	for j := 1; j <= len(b) && b[j-1] == '*'; j++ {
		reach[j] = true
	}
	for i := range len(a) {
		next := make([]bool, len(b)+1)
		next[0] = reach[0] && a[i] == '*'
		for j := 1; j <= len(b); j++ {
			x, y := a[i], b[j-1]
			if x == '*' || y == '*' {
				next[j] = reach[j] || next[j-1]
			} else {
				next[j] = reach[j-1] && (x == y || x == '?' || y == '?')
			}
		}
		reach = next
	}
	return reach[len(b)]
}
