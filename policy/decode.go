// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/usertext"
)

// aliasValues is how many values aliases may add to a policy. Without them it
// has fewer values than bytes.
const aliasValues = 1 << 16

// position is where a value stands in the file, counted from 1.
type position struct{ line, column int }

// decoder walks a YAML tree by the schema. It goes on after a problem, so that
// all of them are reported at once, and remembers where each field was found,
// so that validation, which sees values only, can be placed too.
type decoder struct {
	problems  Errors
	warnings  []Warning
	positions map[string]position
	spoiled   map[string]bool // fields with a problem
	values    int             // so far
	limit     int
}

// field decodes one value; path is for messages.
type field func(n *yaml.Node, path string)

// problem is about a field's value, which is not known then.
func (d *decoder) problem(n *yaml.Node, path, format string, args ...any) {
	d.superfluous(n, path, format, args...)
	d.spoiled[path] = true
}

// superfluous is about a key that should not be there: nothing is made of it.
func (d *decoder) superfluous(key *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{key.Line, key.Column, path, fmt.Sprintf(format, args...)})
}

// unreadable returns what tells fields that could not be read, as a whole or in
// part, or that are within one. What their values are is not known, so that
// nothing can be said about them besides.
func (d *decoder) unreadable() func(path string) bool {
	around := map[string]bool{}
	for path := range d.spoiled {
		for ; path != "" && !around[path]; path = parent(path) {
			around[path] = true
		}
	}
	return func(path string) bool {
		if around[path] {
			return true
		}
		for ; path != ""; path = parent(path) {
			if d.spoiled[path] {
				return true
			}
		}
		return false
	}
}

func (d *decoder) warn(n *yaml.Node, path, format string, args ...any) {
	d.warnings = append(d.warnings, Warning{n.Line, n.Column, path, fmt.Sprintf(format, args...)})
}

// enter notes where a value is and follows an alias. It returns nil when the
// policy has grown too large, which ends the walk.
func (d *decoder) enter(n *yaml.Node, path string) *yaml.Node {
	if d.values++; d.values > d.limit {
		if d.values == d.limit+1 {
			d.problem(n, path, "the policy's aliases expand to more than %d values: write fewer", aliasValues)
		}
		return nil
	}
	d.positions[path] = position{n.Line, n.Column}
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping decodes an object whose keys are all known.
func (d *decoder) mapping(n *yaml.Node, path string, fields map[string]field) {
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		if decode, known := fields[key.Value]; known {
			decode(value, at)
			return
		}
		reason := fmt.Sprintf("unknown field %q", key.Value)
		if key.Tag == "!!merge" {
			reason = "merge keys are not supported: repeat the fields"
		} else if near := usertext.Closest(key.Value, maps.Keys(fields), twoEdits); near != "" {
			reason += fmt.Sprintf(": did you mean %q?", near)
			d.spoiled[Child(path, near)] = true
		}
		d.superfluous(key, at, "%s", reason)
	})
}

// entries calls decode for every entry of an object; it refuses duplicates.
func (d *decoder) entries(n *yaml.Node, path string, decode func(key, value *yaml.Node, at string)) {
	if n = d.enter(n, path); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be an object, not %s", describe(n))
		return
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.problem(key, path, "a key must be a plain string")
			continue
		}
		at := Child(path, key.Value)
		if seen[key.Value] {
			d.superfluous(key, at, "is given twice")
			continue
		}
		seen[key.Value] = true
		decode(key, value, at)
	}
}

// list decodes a list, element by element. An empty list stays apart from an
// absent one (it is not nil), for there are fields where that matters.
func list[T any](d *decoder, n *yaml.Node, path string, decode func(to *T) field) []T {
	if n = d.enter(n, path); n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "must be a list, not %s", describe(n))
		return nil
	}
	out := make([]T, len(n.Content))
	for i, item := range n.Content {
		decode(&out[i])(item, Element(path, i))
	}
	return out
}

// scalar returns a scalar's text, and whether it has the wanted type.
func (d *decoder) scalar(n *yaml.Node, path, tag, want string) (string, bool) {
	if n = d.enter(n, path); n == nil {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.Tag != tag {
		d.problem(n, path, "must be %s, not %s", want, describe(n))
		return n.Value, false
	}
	return n.Value, true
}

func (d *decoder) text(to *string) field {
	return func(n *yaml.Node, path string) {
		*to, _ = d.scalar(n, path, "!!str", "a string")
	}
}

// texts decodes a list of strings for which empty and absent mean the same.
func (d *decoder) texts(to *[]string) field {
	return func(n *yaml.Node, path string) {
		if *to = list(d, n, path, d.text); len(*to) == 0 {
			*to = nil
		}
	}
}

func (d *decoder) boolean(to *bool) field {
	return func(n *yaml.Node, path string) {
		if s, ok := d.scalar(n, path, "!!bool", "true or false"); ok {
			*to = strings.EqualFold(s, "true")
		}
	}
}

// integer decodes a plain decimal number; octal and hexadecimal forms, which
// YAML versions read differently, are refused.
func (d *decoder) integer(n *yaml.Node, path string) (int, bool) {
	s, ok := d.scalar(n, path, "!!int", "a number")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	if err != nil || strconv.Itoa(i) != s {
		d.problem(n, path, "%q is not a plain decimal number", s)
		return 0, false
	}
	return i, true
}

// port decodes a port. One that cannot be read stands for some port.
func (d *decoder) port(to *uint16) field {
	return func(n *yaml.Node, path string) {
		i, ok := d.integer(n, path)
		if ok && (i < 1 || i > 65535) {
			d.problem(n, path, "invalid port %d; expected 1..=65535", i)
			ok = false
		}
		if !ok {
			i = 1
		}
		*to = uint16(i)
	}
}

// size decodes a limit in bytes.
func (d *decoder) size(to *uint32) field {
	return func(n *yaml.Node, path string) {
		i, ok := d.integer(n, path)
		if ok && (i < 0 || i > maxInspectedBytes) {
			d.problem(n, path, "must be a positive integer, at most %d", maxInspectedBytes)
			return
		}
		*to = uint32(i)
	}
}

// unsupported accepts a field of OpenShell's language that this project does
// not implement only where its value asks for nothing.
func (d *decoder) unsupported(name string) field {
	return func(n *yaml.Node, path string) {
		if n = d.enter(n, path); n != nil && !vacuous(n) {
			d.superfluous(n, path, "%s is not supported yet: remove it", name)
		}
	}
}

// vacuous reports whether a value is its type's default.
func vacuous(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode {
		return len(n.Content) == 0 && n.Kind != yaml.AliasNode
	}
	switch n.Tag {
	case "!!null":
		return true
	case "!!bool":
		return strings.EqualFold(n.Value, "false")
	case "!!int":
		return n.Value == "0"
	default:
		return n.Value == ""
	}
}

// describe names a node's type for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias of an alias"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number (quote it to make it a string)"
	case "!!bool":
		return "a boolean (quote it to make it a string)"
	default:
		return "a value of type " + printable.Text(n.Tag)
	}
}

// twoEdits is how far a misspelt name may be from what it means.
func twoEdits(string) int { return 2 }
