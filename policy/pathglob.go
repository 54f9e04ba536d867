// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// endpointPath is the pattern of an endpoint's `path`, which selects among the
// endpoints of one host and port. Unlike in a rule's path, `*` crosses `/`
// here, as it does in OpenShell (Rust's glob crate).
type endpointPath struct {
	subtree     string         // "/x" of "/x/**"
	expr        *regexp.Regexp // nil with an empty subtree: any path
	specificity int
	text        string
}

func compileEndpointPath(pattern string) (endpointPath, error) {
	p := endpointPath{specificity: len(pattern) - strings.Count(pattern, "*"), text: pattern}
	if pattern == "" || pattern == "**" || pattern == "/**" {
		p.specificity = 0
		return p, nil
	}
	if base, ok := strings.CutSuffix(pattern, "/**"); ok && !isGlob(base) {
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

func (p endpointPath) match(path string) bool {
	if p.expr != nil {
		return p.expr.MatchString(path)
	}
	rest, ok := strings.CutPrefix(path, p.subtree)
	return ok && (p.subtree == "" || rest == "" || rest[0] == '/')
}
