// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Request is what a learner sees, and is asked about.
type Request struct{ Method, Path string }

// Rule is what a learner grants: a method and a path in the language of a policy's rules.
type Rule struct{ Method, Path string }

// Learner makes rules of requests.
type Learner struct {
	Name  string
	Learn func([]Request) []Rule
}

// Score is how well a learner did. Coverage, Over and RulesPerOperation are means.
type Score struct {
	Coverage float64
	Over     float64
	Rules    float64 // for each operation that was seen
}

// Sampling is how a workload's requests are drawn.
type Sampling struct {
	K    int    // requests for each operation that is seen
	Seed uint64 // of the split and of all values
	// Distinct leaves requests out that were made before, so that how often something was
	// asked for tells nothing.
	Distinct bool
	// Skewed draws the number of requests for each operation, with K as its mean: most have a
	// few, and some have many.
	Skewed bool
}

// fresh is the number of requests for each operation that the rules are asked about.
const fresh = 10

// requests is how many there are for one operation.
func (s Sampling) requests(rng *rand.Rand) int {
	if !s.Skewed {
		return s.K
	}
	return max(1, int(rng.ExpFloat64()*float64(s.K)+0.5))
}

// Templates is no learner: it knows the templates of the operations that are seen. Its over-permission
// is that of a perfect learner: templates of an API overlap.
var Templates = Learner{"the templates themselves", func([]Request) []Rule { return nil }}

func templates(operations []Operation) []Rule {
	rules := map[Rule]bool{}
	for _, o := range operations {
		path := placeholder.ReplaceAllStringFunc(o.Path, func(p string) string {
			if p[1] == '+' {
				return "**"
			}
			return "*"
		})
		rules[Rule{o.Method, path}] = true
	}
	return sortedRules(rules)
}

// maxOperations is how many of an API's operations, drawn by the seed, take part. Only three APIs
// have more; one of them has a fifth of all there are, and no workload uses as many.
const maxOperations = 2000

// Result is a learner's score on one API, with the operations that it is a mean over.
type Result struct {
	API          *API
	Score        Score
	Seen, Unseen int
}

// Evaluate scores a learner on an API.
func Evaluate(api *API, learner Learner, s Sampling) Result {
	operations := slices.Clone(api.Operations)
	rng := rand.New(rand.NewPCG(hash("split", api.Name), s.Seed))
	rng.Shuffle(len(operations), func(i, j int) { operations[i], operations[j] = operations[j], operations[i] })
	operations = operations[:min(len(operations), maxOperations)]
	half := len(operations) / 2
	seen, unseen := operations[:half], operations[half:]
	v := newValues(api, s.Seed)
	var samples []Request
	known := map[Request]bool{}
	for i := range seen {
		for range s.requests(rng) {
			r := Request{seen[i].Method, v.instance(&seen[i])}
			if s.Distinct && known[r] {
				continue
			}
			known[r] = true
			samples = append(samples, r)
		}
	}
	rng.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
	rules := learner.Learn(samples)
	if learner.Name == Templates.Name {
		rules = templates(seen)
	}
	m := newMatcher(rules)
	return Result{
		API: api, Seen: len(seen), Unseen: len(unseen),
		Score: Score{
			Coverage: v.allowed(m, seen), Over: v.allowed(m, unseen),
			Rules: float64(len(rules)) / float64(len(seen)),
		},
	}
}

// allowed is the mean over operations of the part of fresh requests that the rules allow.
func (v *values) allowed(m *matcher, operations []Operation) float64 {
	n := 0
	for i := range operations {
		for range fresh {
			if m.allows(Request{operations[i].Method, v.instance(&operations[i])}) {
				n++
			}
		}
	}
	return float64(n) / float64(fresh*len(operations))
}

// Mean of results: over APIs, and over all their operations.
func Mean(results []Result) (overAPIs, overOperations Score) {
	var seen, unseen float64
	for _, r := range results {
		overAPIs.Coverage += r.Score.Coverage / float64(len(results))
		overAPIs.Over += r.Score.Over / float64(len(results))
		overAPIs.Rules += r.Score.Rules / float64(len(results))
		seen += float64(r.Seen)
		unseen += float64(r.Unseen)
		overOperations.Coverage += r.Score.Coverage * float64(r.Seen)
		overOperations.Over += r.Score.Over * float64(r.Unseen)
		overOperations.Rules += r.Score.Rules * float64(r.Seen)
	}
	if len(results) > 0 {
		overOperations.Coverage /= seen
		overOperations.Over /= unseen
		overOperations.Rules /= seen
	}
	return overAPIs, overOperations
}

// matcher decides as the policy engine does, faster for many rules. That they agree is tested.
type matcher struct{ methods map[string]*node }

type node struct {
	literal map[string]*node
	globs   []*edge
	end     bool // a rule ends here
	rest    bool // `**`
}

type edge struct {
	glob string
	node
}

func newMatcher(rules []Rule) *matcher {
	m := &matcher{map[string]*node{}}
	for _, r := range rules {
		n := m.methods[r.Method]
		if n == nil {
			n = &node{}
			m.methods[r.Method] = n
		}
		n.add(strings.Split(r.Path, "/")[1:])
	}
	return m
}

func (n *node) add(segments []string) {
	if len(segments) == 0 {
		n.end = true
		return
	}
	s := segments[0]
	if s == "**" {
		n.rest = true
		return
	}
	if !strings.ContainsAny(s, `*?[\`) {
		if n.literal == nil {
			n.literal = map[string]*node{}
		}
		if n.literal[s] == nil {
			n.literal[s] = &node{}
		}
		n.literal[s].add(segments[1:])
		return
	}
	for _, e := range n.globs {
		if e.glob == s {
			e.add(segments[1:])
			return
		}
	}
	e := &edge{glob: s}
	n.globs = append(n.globs, e)
	e.add(segments[1:])
}

func (m *matcher) allows(r Request) bool {
	n := m.methods[r.Method]
	if n != nil && n.allows(strings.Split(r.Path, "/")[1:]) {
		return true
	}
	return r.Method == "HEAD" && m.allows(Request{"GET", r.Path})
}

func (n *node) allows(segments []string) bool {
	if n.rest || len(segments) == 0 {
		return n.rest || n.end
	}
	if next := n.literal[segments[0]]; next != nil && next.allows(segments[1:]) {
		return true
	}
	for _, e := range n.globs {
		if matchSegment(e.glob, segments[0]) && e.allows(segments[1:]) {
			return true
		}
	}
	return false
}

// matchSegment matches one segment against a glob of literals, `*`, and `\` before a literal.
func matchSegment(glob, s string) bool {
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case c == '*':
			for j := 0; j <= len(s); j++ {
				if matchSegment(glob[i+1:], s[j:]) {
					return true
				}
			}
			return false
		case c == '\\' && i+1 < len(glob):
			i++
			fallthrough
		default:
			if s == "" || s[0] != glob[i] {
				return false
			}
			s = s[1:]
		}
	}
	return s == ""
}

// InHalf reports whether an API is among the even, the odd or all.
func InHalf(a *API, half string) bool {
	even := hash(a.Provider())%2 == 0
	return half == "all" || half == "even" && even || half == "odd" && !even
}

// EvaluateAll scores a learner on each of the APIs.
func EvaluateAll(apis []*API, learner Learner, s Sampling) []Result {
	results := make([]Result, len(apis))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, a := range apis {
		group.Go(func() error {
			results[i] = Evaluate(a, learner, s)
			return nil
		})
	}
	_ = group.Wait()
	return results
}
