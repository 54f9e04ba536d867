// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
)

// fromPattern draws a text that a regular expression matches, of characters that are usual in names and ids.
func fromPattern(rng *rand.Rand, pattern string) (string, bool) {
	expr, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", false
	}
	var b strings.Builder
	draw(&b, rng, expr.Simplify())
	return b.String(), b.Len() > 0 && b.Len() <= 200
}

// usual is tried first for a class or a dot.
const usual = "abcdefghijklmnopqrstuvwxyz0123456789"

func draw(b *strings.Builder, rng *rand.Rand, e *syntax.Regexp) {
	repeat := func(least, most int) {
		if most < 0 || most > least+12 {
			most = least + 12
		}
		for range least + rng.IntN(most-least+1) {
			draw(b, rng, e.Sub[0])
		}
	}
	switch e.Op {
	case syntax.OpLiteral:
		b.WriteString(string(e.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(usual[rng.IntN(len(usual))])
	case syntax.OpCharClass:
		b.WriteRune(member(rng, e.Rune))
	case syntax.OpStar:
		repeat(4, 12)
	case syntax.OpPlus:
		repeat(4, 12)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		repeat(e.Min, e.Max)
	case syntax.OpAlternate:
		draw(b, rng, e.Sub[rng.IntN(len(e.Sub))])
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range e.Sub {
			draw(b, rng, sub)
		}
	}
}

// member draws one of a class's characters.
func member(rng *rand.Rand, ranges []rune) rune {
	var members []rune
	for _, r := range usual + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		for i := 0; i+1 < len(ranges); i += 2 {
			if ranges[i] <= r && r <= ranges[i+1] {
				members = append(members, r)
				break
			}
		}
	}
	if len(members) == 0 {
		return ranges[0]
	}
	return members[rng.IntN(len(members))]
}
