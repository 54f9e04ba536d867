// SPDX-License-Identifier: Apache-2.0

package wildcard

import "strings"

// HostIndex finds the wildcard names that match a host, whatever their number.
// It is a tree of labels, from the last one to the first.
type HostIndex[T any] struct {
	literal map[string]*HostIndex[T]
	star    *HostIndex[T]             // by a label that is `*`
	first   AffixIndex[*HostEntry[T]] // names of which only the first label is left
	many    *HostEntry[T]             // `**`, which stands for one or more labels
	exact   *HostEntry[T]             // the name ends here: its first label was literal
}

// HostEntry is a name with wildcards.
type HostEntry[T any] struct {
	label string // the first label, where it has a `*` within it
	Value T
}

// Add returns the entry for a canonical name.
func (x *HostIndex[T]) Add(host string) *HostEntry[T] {
	rest, label, more := cutLast(host)
	switch {
	case more && label == "*":
		if x.star == nil {
			x.star = &HostIndex[T]{}
		}
		return x.star.Add(rest)
	case more || !strings.Contains(label, "*"):
		next := x.literal[label]
		if next == nil {
			next = &HostIndex[T]{}
			if x.literal == nil {
				x.literal = map[string]*HostIndex[T]{}
			}
			x.literal[label] = next
		}
		if more {
			return next.Add(rest)
		}
		return entry(&next.exact, label)
	case label == "**":
		return entry(&x.many, label)
	}
	a := affixOf(label, '.')
	for _, known := range x.first.values[a] {
		if known.label == label {
			return known
		}
	}
	w := &HostEntry[T]{label: label}
	x.first.Add(a, w)
	return w
}

func entry[T any](at **HostEntry[T], label string) *HostEntry[T] {
	if *at == nil {
		*at = &HostEntry[T]{label: label}
	}
	return *at
}

// Any reports whether match is true of one of the names that match the host.
func (x *HostIndex[T]) Any(host string, match func(*HostEntry[T]) bool) bool {
	if x.many != nil && host != "" && match(x.many) {
		return true
	}
	rest, label, more := cutLast(host)
	if label == "" {
		return false
	}
	if !more && x.first.Any(label, func(w *HostEntry[T]) bool { return matchLabel(w.label, label) && match(w) }) {
		return true
	}
	if next := x.literal[label]; next != nil && next.after(rest, more, match) {
		return true
	}
	return more && x.star != nil && x.star.Any(rest, match)
}

// after goes on with the labels that are left, if any.
func (x *HostIndex[T]) after(rest string, more bool, match func(*HostEntry[T]) bool) bool {
	if more {
		return x.Any(rest, match)
	}
	return x.exact != nil && match(x.exact)
}

// cutLast splits off a name's last label.
func cutLast(host string) (rest, label string, more bool) {
	dot := strings.LastIndexByte(host, '.')
	if dot < 0 {
		return "", host, false
	}
	return host[:dot], host[dot+1:], true
}
