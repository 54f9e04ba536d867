// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// Problem is one thing wrong with a policy.
type Problem struct {
	// Line and Column count from 1. They are 0 where the policy did not come
	// from a file.
	Line, Column int
	// Field is the path to the value, such as
	// "network_policies.github.endpoints[0].host". It is empty for a problem
	// of the file as a whole.
	Field  string
	Reason string
}

// Error renders "line:col: field: reason", without the parts that are unknown.
func (p Problem) Error() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", p.Line, p.Column)
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Reason)
	return b.String()
}

// Warning is something a policy's author should know, though it is valid.
type Warning Problem

// inOpenShell ends a warning of what OpenShell refuses.
const inOpenShell = "but OpenShell itself would refuse the policy"

// RefusedByOpenShell reports whether it is about what OpenShell itself does not load.
func (w Warning) RefusedByOpenShell() bool { return strings.HasSuffix(w.Reason, inOpenShell) }

// String renders a warning like a problem.
func (w Warning) String() string { return Problem(w).Error() }

// Errors is everything wrong with a policy. It is never empty as an error.
type Errors []Problem

// Error joins the problems into one line; print the elements for one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "; ")
}

// asError keeps an empty list from becoming a non-nil error.
func (e Errors) asError() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Child appends a map key to a field's path.
func Child(path, key string) string {
	simple := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return !(r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	switch {
	case !simple:
		return fmt.Sprintf("%s[%+q]", path, key)
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

// parent cuts the last key or index off a field's path. Where that is a key in
// quotes, only a part of it may be cut off.
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// Element appends a list index to a field's path.
func Element(path string, i int) string {
	return fmt.Sprintf("%s[%d]", path, i)
}

// EndpointField is the path of a rule's i-th endpoint.
func EndpointField(key string, i int) string {
	return Element(Child("network_policies", key)+".endpoints", i)
}
