// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"fmt"
	"regexp"
	"strings"
)

// EndpointPath is the pattern of an endpoint's `path`, which selects among the
// endpoints of one host and port. Unlike in a rule's path, `*` crosses `/`
// here, as it does in OpenShell (Rust's glob crate).
type EndpointPath struct {
	subtree     string         // "/x" of "/x/**"
	expr        *regexp.Regexp // nil with an empty subtree: any path
	Specificity int
	Text        string
}

func CompileEndpointPath(pattern string) (EndpointPath, error) {
	p := EndpointPath{Specificity: len(pattern) - strings.Count(pattern, "*"), Text: pattern}
	if pattern == "" || pattern == "**" || pattern == "/**" {
		p.Specificity = 0
		return p, nil
	}
	if base, ok := strings.CutSuffix(pattern, "/**"); ok && !IsGlob(base) {
		p.subtree = base
		return p, nil
	}
	if strings.ContainsAny(pattern, `[]{}\`) {
		return p, fmt.Errorf("glob %q: only * and ? are wildcards here", pattern)
	}
	quoted := regexp.QuoteMeta(pattern)
	quoted = strings.ReplaceAll(quoted, `\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\?`, `.`)
	expr, err := regexp.Compile(`(?s)\A` + quoted + `\z`)
	if err != nil {
		return p, fmt.Errorf("glob %q: %w", pattern, err)
	}
	p.expr = expr
	return p, nil
}

func (p EndpointPath) Match(path string) bool {
	if p.expr != nil {
		return p.expr.MatchString(path)
	}
	rest, ok := strings.CutPrefix(path, p.subtree)
	return ok && (p.subtree == "" || rest == "" || rest[0] == '/')
}

// MatchesAll reports whether every path matches.
func (p EndpointPath) MatchesAll() bool { return p.expr == nil && p.subtree == "" }

// Expression is a regular expression for what matches, and literal text that all of it starts with.
func (p EndpointPath) Expression() (expr, prefix string) {
	if p.expr != nil {
		return p.expr.String(), ""
	}
	return `(?s)` + regexp.QuoteMeta(p.subtree) + `(?:/.*)?`, p.subtree
}
