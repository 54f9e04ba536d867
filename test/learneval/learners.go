// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/learn/paths"
)

// OpenShell is package learn/paths.
var OpenShell = OpenShellAbove("openshell", 0)

// OpenShellAbove is package learn/paths with another demand on the evidence, in log-odds.
func OpenShellAbove(name string, odds float64) Learner {
	return Learner{name, func(requests []Request) []Rule {
		var set paths.Set
		for _, r := range requests {
			set.Add(r.Method, r.Path)
		}
		var rules []Rule
		for _, t := range set.TemplatesAbove(odds) {
			rules = append(rules, Rule{t.Method, t.Path})
		}
		return rules
	}}
}

// Simple learners are what other tools do, to compare with.
var Simple = []Learner{
	{"exact", perSegment(func(string) bool { return false })},
	{"digits only", perSegment(onlyDigits)},
	{"digits, UUIDs, 3 digits in 8", perSegment(likelyID)},
	{"+ siblings, 5 or more", siblings(5)},
	{"+ siblings, 3 or more", siblings(3)},
	{"+ shared suffix, 3 or more", sharedSuffix(3)},
	{"+ shared suffix, 2 or more", sharedSuffix(2)},
}

// perSegment generalises what looks like an id by itself.
func perSegment(isID func(string) bool) func([]Request) []Rule {
	return func(requests []Request) []Rule {
		rules := map[Rule]bool{}
		for _, r := range requests {
			segments := strings.Split(r.Path, "/")
			for i, s := range segments {
				if isID(s) {
					segments[i] = "*"
				}
			}
			rules[Rule{r.Method, strings.Join(segments, "/")}] = true
		}
		return sortedRules(rules)
	}
}

func sortedRules(rules map[Rule]bool) []Rule {
	return slices.SortedFunc(maps.Keys(rules), func(a, b Rule) int {
		return strings.Compare(a.Method+a.Path, b.Method+b.Path)
	})
}

func onlyDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// likelyID is the heuristic of traffic analysers: numbers, UUIDs, and 8 characters or more with 3 digits.
func likelyID(s string) bool {
	digits := 0
	for i := range len(s) {
		if '0' <= s[i] && s[i] <= '9' {
			digits++
		}
	}
	return onlyDigits(s) || len(s) >= 8 && digits >= 3
}

// siblings also generalises a segment that has n or more different values after the same ones.
func siblings(n int) func([]Request) []Rule {
	return func(requests []Request) []Rule {
		base := perSegment(likelyID)(requests)
		for depth := 1; ; depth++ {
			values := map[string]map[string]bool{}
			deeper := false
			for _, r := range base {
				segments := strings.Split(r.Path, "/")
				if len(segments) <= depth {
					continue
				}
				deeper = true
				at := strings.Join(segments[:depth], "/")
				if values[at] == nil {
					values[at] = map[string]bool{}
				}
				values[at][segments[depth]] = true
			}
			if !deeper {
				return base
			}
			next := map[Rule]bool{}
			for _, r := range base {
				segments := strings.Split(r.Path, "/")
				if depth > 1 && len(segments) > depth && len(values[strings.Join(segments[:depth], "/")]) >= n {
					segments[depth] = "*"
				}
				next[Rule{r.Method, strings.Join(segments, "/")}] = true
			}
			base = sortedRules(next)
		}
	}
}

// sharedSuffix also generalises a segment that has n or more different values with the same segments
// before and after.
func sharedSuffix(n int) func([]Request) []Rule {
	return func(requests []Request) []Rule {
		base := perSegment(likelyID)(requests)
		for changed := true; changed; {
			values := map[string]map[string]bool{}
			around := func(segments []string, i int) string {
				return fmt.Sprint(strings.Join(segments[:i], "/"), "\n", strings.Join(segments[i+1:], "/"))
			}
			for _, r := range base {
				segments := strings.Split(r.Path, "/")
				for i := 2; i < len(segments); i++ {
					at := r.Method + around(segments, i)
					if values[at] == nil {
						values[at] = map[string]bool{}
					}
					values[at][segments[i]] = true
				}
			}
			next := map[Rule]bool{}
			changed = false
			for _, r := range base {
				segments := strings.Split(r.Path, "/")
				for i := len(segments) - 1; i >= 2; i-- {
					if segments[i] != "*" && len(values[r.Method+around(segments, i)]) >= n {
						segments[i] = "*"
						changed = true
						break
					}
				}
				next[Rule{r.Method, strings.Join(segments, "/")}] = true
			}
			base = sortedRules(next)
		}
		return base
	}
}
