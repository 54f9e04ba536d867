// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// hostIndex finds the wildcard names that match a host, whatever their number.
// It is a tree of labels, from the last one to the first.
type hostIndex struct {
	literal map[string]*hostIndex
	star    *hostIndex                // by a label that is `*`
	first   affixIndex[*wildcardHost] // names of which only the first label is left
	many    *wildcardHost             // `**`, which stands for one or more labels
	exact   *wildcardHost             // the name ends here: its first label was literal
}

// wildcardHost is a name with wildcards.
type wildcardHost struct {
	label   string // the first label, where it has a `*` within it
	buckets map[service]*bucket
}

// add returns the entry for a canonical name.
func (x *hostIndex) add(host string) *wildcardHost {
	rest, label, more := cutLast(host)
	switch {
	case more && label == "*":
		if x.star == nil {
			x.star = &hostIndex{}
		}
		return x.star.add(rest)
	case more || !strings.Contains(label, "*"):
		next := x.literal[label]
		if next == nil {
			next = &hostIndex{}
			if x.literal == nil {
				x.literal = map[string]*hostIndex{}
			}
			x.literal[label] = next
		}
		if more {
			return next.add(rest)
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
	w := &wildcardHost{label: label, buckets: map[service]*bucket{}}
	x.first.add(a, w)
	return w
}

func entry(at **wildcardHost, label string) *wildcardHost {
	if *at == nil {
		*at = &wildcardHost{label: label, buckets: map[service]*bucket{}}
	}
	return *at
}

// any reports whether match is true of one of the names that match the host.
func (x *hostIndex) any(host string, match func(*wildcardHost) bool) bool {
	if x.many != nil && host != "" && match(x.many) {
		return true
	}
	rest, label, more := cutLast(host)
	if label == "" {
		return false
	}
	if !more && x.first.any(label, func(w *wildcardHost) bool { return wildcard(w.label, label) && match(w) }) {
		return true
	}
	if next := x.literal[label]; next != nil && next.after(rest, more, match) {
		return true
	}
	return more && x.star != nil && x.star.any(rest, match)
}

// after goes on with the labels that are left, if any.
func (x *hostIndex) after(rest string, more bool, match func(*wildcardHost) bool) bool {
	if more {
		return x.any(rest, match)
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
