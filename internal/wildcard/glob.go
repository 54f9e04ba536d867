// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// Glob is a compiled pattern in the dialect that OpenShell's matcher has (the
// globset crate with a literal separator): `*` and `?` stay within a
// component, `**` as a whole component crosses, `[a-z]` and `[!a-z]` are
// classes, `{a,b}` alternatives, of which empty ones do not count, `\` escapes.
//
// It runs on the regexp package, whose time is linear in the input whatever
// the pattern: the text it is matched against is the workload's.
type Glob struct {
	Affix                // literal text every match starts and ends with
	expr  *regexp.Regexp // nil where the prefix is the whole pattern
}

// maxGlob bounds a pattern's length in bytes.
const MaxGlob = 4096

// globMeta are the characters that are not literal in a glob.
const globMeta = `*?[]{}\`

func IsGlob(pattern string) bool { return strings.ContainsAny(pattern, globMeta) }

// EscapeGlob returns the pattern that matches a text only.
func EscapeGlob(text string) string {
	if !IsGlob(text) {
		return text
	}
	var out strings.Builder
	for i := range len(text) {
		if strings.IndexByte(globMeta, text[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// CompileGlob compiles a pattern whose components are divided by separator.
func CompileGlob(pattern string, separator byte) (Glob, error) {
	if len(pattern) > MaxGlob {
		return Glob{}, fmt.Errorf("glob is longer than %d bytes", MaxGlob)
	}
	if !IsGlob(pattern) {
		return Glob{Affix: affixOf(pattern, separator)}, nil
	}
	t := globTranslator{rest: pattern, separator: separator}
	if err := t.translate(); err != nil {
		return Glob{}, fmt.Errorf("glob %q: %w", pattern, err)
	}
	expr, err := regexp.Compile(`(?s)\A(?:` + string(t.out) + `)\z`)
	if err != nil {
		// Classes are the only text taken over from the pattern.
		var cause *syntax.Error
		if errors.As(err, &cause) {
			return Glob{}, fmt.Errorf("glob %q: %s", pattern, cause.Code)
		}
		return Glob{}, fmt.Errorf("glob %q: %w", pattern, err)
	}
	return Glob{Affix: affixOf(pattern, separator), expr: expr}, nil
}

// CompileGlobs compiles patterns over values rather than paths, for which
// OpenShell has OPA's default delimiter.
func CompileGlobs(patterns []string) ([]Glob, error) {
	globs := make([]Glob, len(patterns))
	for i, pattern := range patterns {
		var err error
		if globs[i], err = CompileGlob(pattern, '.'); err != nil {
			return nil, err
		}
	}
	return globs, nil
}

func AnyMatches(globs []Glob, s string) bool {
	for i := range globs {
		if globs[i].Match(s) {
			return true
		}
	}
	return false
}

// IsLiteral reports whether the pattern matches one text only, which is its prefix.
func (g Glob) IsLiteral() bool { return g.expr == nil }

// Expression is the regular expression that the pattern is matched with; not for a literal.
func (g Glob) Expression() string { return g.expr.String() }

func (g Glob) Match(s string) bool {
	if g.expr == nil {
		return s == g.Prefix
	}
	return strings.HasPrefix(s, g.Prefix) && strings.HasSuffix(s, g.suffix) && g.expr.MatchString(s)
}

// globTranslator turns a glob into the body of a regular expression.
type globTranslator struct {
	rest      string
	separator byte
	out       []byte
	braces    []alternatives // those that are open
	component bool           // something stands in the current component already
}

// alternatives are those of an open brace so far.
type alternatives struct {
	start int  // of the current one in the output
	some  bool // an earlier one is not empty
}

// group starts the expression of a brace.
const group = "(?:"

// endAlternative ends the current one, which counts unless it is empty.
func (t *globTranslator) endAlternative() {
	last := &t.braces[len(t.braces)-1]
	if len(t.out) == last.start {
		return
	}
	if last.some {
		t.out = slices.Insert(t.out, last.start, '|')
	}
	last.start, last.some = len(t.out), true
}

// endBrace ends a brace, of which nothing is left if all in it is empty.
func (t *globTranslator) endBrace() {
	t.endAlternative()
	last := len(t.braces) - 1
	if t.braces[last].some {
		t.write(")")
	} else {
		t.out = t.out[:len(t.out)-len(group)]
	}
	t.braces = t.braces[:last]
}

func (t *globTranslator) write(expr string) { t.out = append(t.out, expr...) }

func (t *globTranslator) translate() error {
	within := `[^` + regexp.QuoteMeta(string(t.separator)) + `]`
	for t.rest != "" {
		switch c := t.rest[0]; c {
		case '*':
			t.star(within)
			continue
		case '?':
			t.write(within)
		case '[':
			if err := t.class(); err != nil {
				return err
			}
			continue
		case '{':
			t.write(group)
			t.braces = append(t.braces, alternatives{start: len(t.out)})
			t.rest, t.component = t.rest[1:], false
			continue
		case '}':
			if len(t.braces) == 0 {
				return errors.New("unopened '}'")
			}
			t.endBrace()
		case ',':
			if len(t.braces) > 0 {
				t.endAlternative()
				t.rest, t.component = t.rest[1:], false
				continue
			}
			t.write(",")
		case '\\':
			if t.rest = t.rest[1:]; t.rest == "" {
				return errors.New("dangling '\\'")
			}
			t.literal()
			continue
		default:
			t.literal()
			continue
		}
		t.component = true
		t.rest = t.rest[1:]
	}
	if len(t.braces) > 0 {
		return errors.New("unclosed '{'")
	}
	return nil
}

// literal takes over one character.
func (t *globTranslator) literal() {
	_, size := utf8.DecodeRuneInString(t.rest)
	t.write(regexp.QuoteMeta(t.rest[:size]))
	t.component = t.rest[0] != t.separator
	t.rest = t.rest[size:]
}

// star translates a run of stars: `**` that is a whole component crosses
// separators, anything else stays within its component.
func (t *globTranslator) star(within string) {
	stars := len(t.rest) - len(strings.TrimLeft(t.rest, "*"))
	after := t.rest[stars:]
	sep := regexp.QuoteMeta(string(t.separator))
	whole := stars == 2 && !t.component && (after == "" || after[0] == t.separator || t.endsAlternative(after))
	t.rest = after
	switch {
	case !whole:
		t.write(within + "*")
		t.component = true
	case after == "" || after[0] != t.separator:
		t.write(".*")
	case t.separator == '/':
		// "/**/" and a leading "**/" also stand for no component at all.
		t.write("(?:.*" + sep + ")?")
		t.rest = after[1:]
	default:
		// With another delimiter, OpenShell wants at least one component.
		t.write(".+" + sep)
		t.rest = after[1:]
	}
}

// endsAlternative reports whether a component ends with an alternative that has
// more in it than this.
func (t *globTranslator) endsAlternative(after string) bool {
	if len(t.braces) == 0 || after[0] != ',' && after[0] != '}' {
		return false
	}
	return len(t.out) > t.braces[len(t.braces)-1].start
}

// class translates "[...]". A class never matches the separator.
func (t *globTranslator) class() error {
	body := t.rest[1:]
	negated := strings.HasPrefix(body, "!") || strings.HasPrefix(body, "^")
	if negated {
		body = body[1:]
	}
	end := strings.IndexByte(body[min(1, len(body)):], ']')
	if end < 0 {
		return errors.New("unclosed '['")
	}
	members := body[:end+1]
	t.rest = body[end+2:]
	t.component = true
	// Only a range's '-' keeps a meaning.
	var quoted strings.Builder
	for i, r := range members {
		switch {
		case r == '-' && i > 0 && i < len(members)-1:
			quoted.WriteByte('-')
		case r == rune(t.separator):
			return fmt.Errorf("a class cannot hold %q", t.separator)
		case strings.ContainsRune(`\]^-[&~`, r):
			quoted.WriteString(`\` + string(r))
		default:
			quoted.WriteRune(r)
		}
	}
	if negated {
		t.write("[^" + quoted.String() + regexp.QuoteMeta(string(t.separator)) + "]")
		return nil
	}
	if spansSeparator(members, rune(t.separator)) {
		return fmt.Errorf("a class cannot hold %q", t.separator)
	}
	t.write("[" + quoted.String() + "]")
	return nil
}

// spansSeparator reports whether a range of a class includes the separator.
func spansSeparator(members string, separator rune) bool {
	runes := []rune(members)
	for i := 1; i+1 < len(runes); i++ {
		if runes[i] == '-' && runes[i-1] <= separator && separator <= runes[i+1] {
			return true
		}
	}
	return slices.Contains(runes, separator)
}
