// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// The evidence for a segment's being a name that varies is added up as log-odds. The figures
// were chosen with test/learneval, on the half of the descriptions that is for tuning.
var weights = struct {
	// Of one value, by its form.
	vocabulary, partly, foreign, digits, separators float64
	// Of one value, by how often it was seen where requests do repeat.
	once, again float64
	// Of several values that go on in the same way.
	prior, anchored, confirmed, typed float64
	// What a method that changes things needs more of.
	write float64
}{
	vocabulary: -2.35, partly: 0.3, foreign: 0, digits: 2, separators: 0.4,
	once: 1, again: -2.5,
	prior: -2, anchored: 2.25, confirmed: 2, typed: -0.5,
	write: 0.7,
}

const (
	minValues      = 3 // different values before anything but its form generalises a segment
	minConfirmed   = 2 // where other requests have shown that it varies
	minWriteValues = 2 // for a method that changes things
)

// request is a pattern on its way to a template.
type request struct {
	method   string
	segments []string
	count    int
	odds     float64     // the weakest evidence that was used; +Inf for none
	values   map[int]int // how many different values a generalised segment had, by depth
}

// inference goes through the patterns of a group from the first segment on.
type inference struct {
	repeats   float64 // how much it tells that a value was seen but once, from 0 to 1
	threshold float64 // in log-odds
	done      []*request
}

// infer generalises the patterns of a group together, where the log-odds exceed the threshold.
func infer(patterns map[entry]int, threshold float64) []*request {
	var all []*request
	for e, n := range patterns {
		all = append(all, &request{e.method, e.segments(), n, math.Inf(1), nil})
	}
	in := &inference{repeats: repeats(all), threshold: threshold}
	in.descend(all, 0)
	return in.done
}

// repeats tells whether requests without an identifier are made more than once: where
// nothing is ever asked for twice, being asked for once says nothing.
func repeats(all []*request) float64 {
	n := 0.0
	for _, r := range all {
		if r.count > 1 && !slices.ContainsFunc(r.segments, isTyped) {
			n++
		}
	}
	return n / (n + 2)
}

// descend takes requests that are alike before the segment at depth.
func (in *inference) descend(requests []*request, depth int) {
	var here []*request
	for _, r := range requests {
		if len(r.segments) == depth {
			in.done = append(in.done, r)
		} else {
			here = append(here, r)
		}
	}
	if len(here) == 0 {
		return
	}
	in.generalise(here, depth)
	next := map[string][]*request{}
	for _, r := range here {
		next[r.segments[depth]] = append(next[r.segments[depth]], r)
	}
	for _, below := range next {
		in.descend(below, depth+1)
	}
}

// cluster is requests that go on in the same way after a segment that may vary.
type cluster struct {
	requests []*request
	values   map[string]int // count
	anchored bool           // a literal segment follows, for two values or more
	odds     float64
}

// generalise replaces, at depth, the segments of clusters that the evidence is enough for.
func (in *inference) generalise(requests []*request, depth int) {
	typedSibling := false
	var open []*request
	for _, r := range requests {
		switch s := r.segments[depth]; {
		case depth < leading(r.segments), s == "", isAPIVersion(s):
		case isTyped(s):
			typedSibling = true
		default:
			open = append(open, r)
		}
	}
	if len(open) < minConfirmed {
		return
	}
	clusters := clustersOf(open, depth)
	confirmed := false
	for _, c := range clusters {
		in.weigh(c)
		if typedSibling {
			c.odds += weights.typed
		}
		confirmed = confirmed || len(c.values) >= minValues && c.odds > in.threshold
	}
	for _, c := range clusters {
		if confirmed {
			c.odds += weights.confirmed
		}
		if len(c.values) >= minValues || confirmed && len(c.values) >= minConfirmed {
			c.replace(depth, in.threshold)
		}
	}
}

// clustersOf groups requests by what follows the segment. What follows is the same when it is as
// long and has the same anchors: literal segments that follow two values or more.
func clustersOf(requests []*request, depth int) map[string]*cluster {
	type place struct {
		depth   int
		segment string
	}
	after := map[place]string{} // the value before, or many
	const many = "/"
	for _, r := range requests {
		value, _ := stem(r.segments[depth])
		for i := depth + 1; i < len(r.segments); i++ {
			p := place{i, r.segments[i]}
			if before, ok := after[p]; !ok {
				after[p] = value
			} else if before != value {
				after[p] = many
			}
		}
	}
	clusters := map[string]*cluster{}
	for _, r := range requests {
		value, suffix := stem(r.segments[depth])
		key := []string{suffix}
		anchored := suffix != ""
		for i := depth + 1; i < len(r.segments); i++ {
			s := r.segments[i]
			switch {
			case isTyped(s):
			case after[place{i, s}] == many:
				anchored = anchored || s != ""
			default:
				s = "*"
			}
			key = append(key, s)
		}
		name := strings.Join(key, "/")
		c := clusters[name]
		if c == nil {
			c = &cluster{values: map[string]int{}, anchored: anchored}
			clusters[name] = c
		}
		c.requests = append(c.requests, r)
		c.values[value] += r.count
	}
	return clusters
}

// stem divides a segment from a suffix that says what it is or what is done to it: .json, :cancel.
func stem(s string) (value, suffix string) {
	if i := strings.LastIndexByte(s, ':'); i > 0 && i+1 < len(s) &&
		all(s[i+1:], func(c byte) bool { return isLower(c) || isUpper(c) }) {
		return s[:i], s[i:]
	}
	if i := strings.LastIndexByte(s, '.'); i > 0 && i+1 < len(s) && len(s)-i <= len(".jsonl") && all(s[i+1:], isLower) {
		return s[:i], s[i:]
	}
	return s, ""
}

// weigh sets the log-odds that the cluster's values are names. Some of them may be the API's
// own all the same (/users/me), so the values are a mixture of both, of the kind that explains them best.
func (in *inference) weigh(c *cluster) {
	evidence := make([]float64, 0, len(c.values))
	for _, value := range slices.Sorted(maps.Keys(c.values)) {
		e := form(value)
		if n := c.values[value]; n == 1 {
			e += in.repeats * weights.once
		} else {
			e += in.repeats * weights.again * min(math.Log2(float64(n)), 4) / 2
		}
		evidence = append(evidence, e)
	}
	best := math.Inf(-1)
	for _, names := range []float64{0.3, 0.6, 0.9} {
		sum := 0.0
		for _, e := range evidence {
			sum += math.Log(1 - names + names*math.Exp(e))
		}
		best = max(best, sum)
	}
	c.odds = best + weights.prior
	if c.anchored {
		c.odds += weights.anchored
	}
}

// form is the log-odds that a value is a name rather than a word of an API, by itself.
func form(value string) float64 {
	words := words(value)
	known := 0
	for _, w := range words {
		if vocabulary[w] {
			known++
		}
	}
	var e float64
	switch {
	case len(words) > 0 && known == len(words):
		e = weights.vocabulary
	case known > 0:
		e = weights.partly
	default:
		e = weights.foreign
	}
	if strings.ContainsAny(value, "0123456789") {
		e += weights.digits
	}
	if strings.ContainsAny(value, "-_.%@+,=") {
		e += weights.separators
	}
	return e
}

// words are those of a segment, in lower case: at what is no letter, and at CamelCase's humps.
func words(s string) []string {
	var out []string
	start := 0
	end := func(i int) {
		if i > start {
			out = append(out, strings.ToLower(s[start:i]))
		}
	}
	for i := range len(s) {
		switch c := s[i]; {
		case !isLower(c) && !isUpper(c):
			end(i)
			start = i + 1
		case isUpper(c) && i > start && !isUpper(s[i-1]):
			end(i)
			start = i
		}
	}
	end(len(s))
	return out
}

// replace generalises the cluster's segments, of each method that there is enough evidence for.
func (c *cluster) replace(depth int, threshold float64) {
	byMethod := map[string]map[string]bool{}
	for _, r := range c.requests {
		if byMethod[r.method] == nil {
			byMethod[r.method] = map[string]bool{}
		}
		byMethod[r.method][r.segments[depth]] = true
	}
	for _, r := range c.requests {
		odds := c.odds - threshold
		if isWrite(r.method) {
			odds -= weights.write
			if len(byMethod[r.method]) < minWriteValues {
				continue
			}
		}
		if odds <= 0 {
			continue
		}
		_, suffix := stem(r.segments[depth])
		r.segments[depth] = typeName + suffix
		r.odds = min(r.odds, odds)
		if r.values == nil {
			r.values = map[int]int{}
		}
		r.values[depth] = len(c.values)
	}
}

// isWrite reports whether a method changes what is there already.
func isWrite(method string) bool {
	return method == "PUT" || method == "PATCH" || method == "DELETE"
}
