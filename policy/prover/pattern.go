// SPDX-License-Identifier: Apache-2.0

package prover

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/wildcard"
)

// pattern is a set of strings, as two policies compare them: a host, a binary, a
// path or a query's value. It is the regular expression that decisions match
// with, so that what is shown of it is true of them.
type pattern struct {
	text   string // a literal's only string, or what was written
	expr   string // the expression, between \A and \z; "" for a literal
	prefix string // literal text that every string starts with
	suffix string // literal text that every string ends with
	nfa    *nfa   // of the expression, once it was needed
}

// anyText is every string.
var anyText = &pattern{text: "**", expr: `(?s).*`}

func literalPattern(text string) *pattern {
	return &pattern{text: text, prefix: text, suffix: text}
}

// globPattern is a glob as compileGlob reads it.
func globPattern(text string, separator byte) (*pattern, error) {
	g, err := wildcard.CompileGlob(text, separator)
	if err != nil {
		return nil, err
	}
	if g.IsLiteral() {
		return literalPattern(text), nil
	}
	return &pattern{text: text, expr: g.Expression(), prefix: g.Prefix}, nil
}

// binaryPattern is a binary's path, which is a glob only with a `*`.
func binaryPattern(path string) (*pattern, error) {
	if strings.Contains(path, "*") {
		return globPattern(path, '/')
	}
	return literalPattern(path), nil
}

// hostPatternText is an endpoint's host, as hostIndex matches it. No host is any
// host.
func hostPatternText(host string) *pattern {
	host = wildcard.CanonicalHost(host)
	switch {
	case host == "":
		return anyText
	case !strings.Contains(host, "*"):
		if a, literal := wildcard.HostAddr(host); literal {
			return literalPattern(ipaddr.Plain(a).String())
		}
		return literalPattern(host)
	}
	labels := strings.Split(host, ".")
	for i, label := range labels {
		switch {
		case label == "**":
			labels[i] = `.+`
		case label == "*":
			labels[i] = `[^.]+`
		default:
			labels[i] = strings.ReplaceAll(regexp.QuoteMeta(label), `\*`, `[^.]*`)
		}
	}
	expr := `(?s)` + strings.Join(labels, `\.`)
	suffix := host[strings.LastIndexByte(host, '*')+1:]
	return &pattern{text: host, expr: expr, suffix: suffix}
}

// endpointPathPattern is an endpoint's path, as endpointPath matches it.
func endpointPathPattern(text string) (*pattern, error) {
	p, err := wildcard.CompileEndpointPath(text)
	switch {
	case err != nil:
		return nil, err
	case p.MatchesAll():
		return anyText, nil
	}
	expr, prefix := p.Expression()
	return &pattern{text: text, expr: expr, prefix: prefix}, nil
}

// compiled returns the pattern's automaton.
func (p *pattern) compiled() (*nfa, error) {
	if p.nfa == nil {
		expr := p.expr
		if expr == "" {
			expr = `(?s)` + regexp.QuoteMeta(p.text)
		}
		n, err := newNFA(expr)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p.text, err)
		}
		p.nfa = n
	}
	return p.nfa, nil
}

// patterns compares sets of strings with bounded effort: once it is spent,
// nothing can be shown any more.
type patterns struct{ effort int }

// maxEffort is about a second's work.
const maxEffort = 10_000_000

func (c *patterns) spend(n int) bool {
	c.effort -= n
	return c.effort >= 0
}

// within reports whether every string of a is shown to be in one of bs.
func (c *patterns) within(a *pattern, bs ...*pattern) bool {
	if !c.spend(1 + len(bs)) {
		return false
	}
	var candidates []*pattern
	for _, b := range bs {
		switch {
		case a == b, b == anyText, a.expr == b.expr && (a.expr != "" || a.text == b.text):
			return true
		case a.expr == "" && b.expr == "", a.apart(b), strings.ContainsRune(b.text, utf8.RuneError):
			// A literal that an expression would confuse with bytes that are
			// not UTF-8 is contained in nothing but itself.
			continue
		}
		candidates = append(candidates, b)
	}
	switch {
	case len(candidates) == 0:
		return false
	case a.expr == "":
		return slices.ContainsFunc(candidates, func(b *pattern) bool { return c.has(b, a.text) })
	}
	exceeds, known := c.search(append([]*pattern{a}, candidates...), func(accepts []bool) bool {
		return accepts[0] && !slices.Contains(accepts[1:], true)
	})
	return known && !exceeds
}

// disjoint reports whether no string is shown to be in both.
func (c *patterns) disjoint(a, b *pattern) bool {
	switch {
	case !c.spend(1):
		return false
	case a.expr == "" && b.expr == "":
		return a.text != b.text
	case a == anyText || b == anyText:
		return false
	case a.apart(b):
		return true
	case a.expr == "":
		return !c.has(b, a.text) && c.effort >= 0
	case b.expr == "":
		return !c.has(a, b.text) && c.effort >= 0
	}
	both, known := c.search([]*pattern{a, b}, func(accepts []bool) bool { return accepts[0] && accepts[1] })
	return known && !both
}

// has reports whether a pattern has a literal's string. False is only certain
// while there is effort left.
func (c *patterns) has(p *pattern, text string) bool {
	n, err := p.compiled()
	if err != nil {
		c.effort = -1
		return false
	}
	states := n.start
	for _, r := range text {
		if !c.spend(1 + len(states)) {
			return false
		}
		states = n.step(states, r)
	}
	return n.accepts(states)
}

// apart is a quick look at the literal ends.
func (p *pattern) apart(q *pattern) bool {
	return !strings.HasPrefix(p.prefix, q.prefix) && !strings.HasPrefix(q.prefix, p.prefix) ||
		!strings.HasSuffix(p.suffix, q.suffix) && !strings.HasSuffix(q.suffix, p.suffix)
}

// search walks the patterns' automata together over all strings, as long as the
// first still may accept, and reports whether a string has the property. It is
// not known where the effort did not suffice.
func (c *patterns) search(all []*pattern, property func(accepts []bool) bool) (found, known bool) {
	nfas := make([]*nfa, len(all))
	start := make([][]uint32, len(all))
	for i, p := range all {
		n, err := p.compiled()
		if err != nil {
			return false, false
		}
		nfas[i], start[i] = n, n.start
	}
	alphabet := representatives(nfas)
	accepts := make([]bool, len(all))
	seen := map[string]bool{stateKey(start): true}
	for queue := [][][]uint32{start}; len(queue) > 0; queue = queue[1:] {
		states := queue[0]
		for i, n := range nfas {
			accepts[i] = n.accepts(states[i])
		}
		if property(accepts) {
			return true, true
		}
		for _, r := range alphabet {
			next, cost := make([][]uint32, len(all)), 0
			for i, n := range nfas {
				next[i] = n.step(states[i], r)
				cost += 1 + len(states[i])
			}
			if !c.spend(cost) {
				return false, false
			}
			if len(next[0]) == 0 {
				continue
			}
			if key := stateKey(next); !seen[key] {
				seen[key] = true
				queue = append(queue, next)
			}
		}
	}
	return false, true
}

// nfa is a regular expression's program without what finds submatches.
type nfa struct {
	prog   *syntax.Prog
	start  []uint32
	follow [][]uint32 // closures, by instruction, once they were needed
}

func newNFA(expr string) (*nfa, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	n := &nfa{prog: prog, follow: make([][]uint32, len(prog.Inst))}
	n.start = n.closure(uint32(prog.Start))
	return n, nil
}

// closure returns the instructions that consume something or accept, and that pc
// leads to, in order. Every pattern is anchored at both ends and nowhere else, so
// that anchors can be passed over.
func (n *nfa) closure(pc uint32) []uint32 {
	if n.follow[pc] != nil {
		return n.follow[pc]
	}
	set := []uint32{}
	visited := map[uint32]bool{}
	for stack := []uint32{pc}; len(stack) > 0; {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if visited[pc] {
			continue
		}
		visited[pc] = true
		switch inst := &n.prog.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			stack = append(stack, inst.Out)
		case syntax.InstFail:
		default:
			set = append(set, pc)
		}
	}
	slices.Sort(set)
	n.follow[pc] = set
	return set
}

func (n *nfa) accepts(set []uint32) bool {
	return slices.ContainsFunc(set, func(pc uint32) bool { return n.prog.Inst[pc].Op == syntax.InstMatch })
}

func (n *nfa) step(set []uint32, r rune) []uint32 {
	var next []uint32
	for _, pc := range set {
		if inst := &n.prog.Inst[pc]; inst.Op != syntax.InstMatch && inst.MatchRune(r) {
			next = append(next, n.closure(inst.Out)...)
		}
	}
	slices.Sort(next)
	return slices.Compact(next)
}

// representatives returns a character of each class that the automata cannot
// tell apart.
func representatives(nfas []*nfa) []rune {
	bounds := []rune{0}
	for _, n := range nfas {
		for i := range n.prog.Inst {
			switch inst := &n.prog.Inst[i]; inst.Op {
			case syntax.InstRune, syntax.InstRune1:
				for j := 0; j < len(inst.Rune); j += 2 {
					last := inst.Rune[min(j+1, len(inst.Rune)-1)]
					bounds = append(bounds, inst.Rune[j], last+1)
				}
			case syntax.InstRuneAnyNotNL:
				bounds = append(bounds, '\n', '\n'+1)
			}
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	return slices.DeleteFunc(bounds, func(r rune) bool { return r > unicode.MaxRune })
}

func stateKey(states [][]uint32) string {
	var key []byte
	for _, set := range states {
		key = binary.AppendUvarint(key, uint64(len(set)))
		for _, pc := range set {
			key = binary.AppendUvarint(key, uint64(pc))
		}
	}
	return string(key)
}
