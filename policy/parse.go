// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/internal/printable"
)

// maxPolicyBytes is OpenShell's limit on a policy file.
const maxPolicyBytes = 4 << 20

// learnedComment above a rule's key marks it as learned. It is a comment so
// that OpenShell still loads the file; it is read back so that a learned rule
// does not gain trust by being exported and used again.
const learnedComment = "openshell.ai/learned"

// Parse reads and validates a policy. Unknown keys, wrong types and values
// that could not mean anything are errors, all reported together as Errors;
// keys of OpenShell's that are not implemented are refused by name.
func Parse(data []byte) (*Policy, []Warning, error) {
	if len(data) > maxPolicyBytes {
		return nil, nil, Errors{{Reason: fmt.Sprintf("the policy has %d bytes, more than %d", len(data), maxPolicyBytes)}}
	}
	root, problem := readDocument(data)
	if problem != nil {
		return nil, nil, Errors{*problem}
	}
	d := &decoder{positions: map[string]position{}, spoiled: map[string]bool{}, limit: len(data) + aliasValues}
	p := d.policy(root)
	if d.values <= d.limit {
		v := &validator{unreadable: d.unreadable()}
		v.policy(p)
		d.place(v)
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	slices.SortStableFunc(d.warnings, func(a, b Warning) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	if err := d.problems.asError(); err != nil {
		return nil, d.warnings, err
	}
	return p, d.warnings, nil
}

// place takes over what validation found, with the position of each field or
// of the nearest one around it.
func (d *decoder) place(v *validator) {
	locate := func(path string) position {
		for {
			if at, ok := d.positions[path]; ok || path == "" {
				return at
			}
			path = parent(path)
		}
	}
	for _, p := range v.problems {
		at := locate(p.Field)
		d.problems = append(d.problems, Problem{at.line, at.column, p.Field, p.Reason})
	}
	for _, w := range v.warnings {
		at := locate(w.Field)
		d.warnings = append(d.warnings, Warning{at.line, at.column, w.Field, w.Reason})
	}
}

// readDocument reads the one YAML document of a policy, and returns its root.
func readDocument(data []byte) (*yaml.Node, *Problem) {
	if at := firstInvalid(data); at != nil {
		return nil, at
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, syntaxProblem(err)
	}
	var document, second yaml.Node
	switch err := loader.Load(&document); {
	case errors.Is(err, io.EOF):
		return nil, &Problem{Line: 1, Column: 1, Reason: "not valid YAML: the policy is empty: start it with version: 1"}
	case err != nil:
		return nil, syntaxProblem(err)
	case document.Kind != yaml.DocumentNode || len(document.Content) != 1:
		return nil, &Problem{Line: 1, Column: 1, Reason: "must hold one YAML document"}
	}
	switch err := loader.Load(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	case err != nil:
		return nil, syntaxProblem(err)
	}
	return nil, &Problem{Line: second.Line, Column: second.Column,
		Reason: "not valid YAML: a second document starts here: a policy is one"}
}

// firstInvalid places the first byte that is not UTF-8, which the YAML reader
// does not.
func firstInvalid(data []byte) *Problem {
	if utf8.Valid(data) {
		return nil
	}
	line, column := 1, 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1:
			return &Problem{Line: line, Column: column, Reason: "not valid YAML: is not valid UTF-8"}
		case r == '\n':
			line, column = line+1, 1
		default:
			column++
		}
		data = data[size:]
	}
	return nil
}

// syntaxProblem places an error of the YAML reader.
func syntaxProblem(err error) *Problem {
	var all *yaml.LoadErrors
	if errors.As(err, &all) && len(all.Errors) > 0 {
		err = all.Errors[0]
	}
	var one *yaml.LoadError
	if errors.As(err, &one) {
		return &Problem{max(one.Mark.Line, 1), max(one.Mark.Column, 1), "", "not valid YAML: " + printable.Text(one.Message)}
	}
	return &Problem{1, 1, "", "not valid YAML: " + printable.Text(err.Error())}
}

func (d *decoder) policy(root *yaml.Node) *Policy {
	p := &Policy{}
	versioned := false
	d.mapping(root, "", map[string]field{
		"version": func(n *yaml.Node, path string) {
			versioned = true
			p.Version, _ = d.integer(n, path)
		},
		"filesystem_policy":   optional(func(n *yaml.Node, path string) { p.Filesystem = d.filesystem(n, path) }),
		"landlock":            optional(func(n *yaml.Node, path string) { p.Landlock = d.landlock(n, path) }),
		"process":             optional(func(n *yaml.Node, path string) { p.Process = d.process(n, path) }),
		"network_policies":    func(n *yaml.Node, path string) { p.Network = d.network(n, path) },
		"network_middlewares": d.middlewares,
	})
	if root.Kind == yaml.MappingNode && !versioned {
		d.problem(root, "version", "is required: add version: 1")
	}
	return p
}

// optional leaves out a section with nothing under it, which OpenShell takes for
// an absent one.
func optional(decode field) field {
	return func(n *yaml.Node, path string) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
			decode(n, path)
		}
	}
}

func (d *decoder) filesystem(n *yaml.Node, path string) *Filesystem {
	f := &Filesystem{}
	d.mapping(n, path, map[string]field{
		"include_workdir": d.boolean(&f.IncludeWorkdir),
		"read_only":       d.texts(&f.ReadOnly),
		"read_write":      d.texts(&f.ReadWrite),
	})
	return f
}

func (d *decoder) landlock(n *yaml.Node, path string) *Landlock {
	l := &Landlock{}
	d.mapping(n, path, map[string]field{"compatibility": d.text(&l.Compatibility)})
	return l
}

func (d *decoder) process(n *yaml.Node, path string) *Process {
	p := &Process{}
	d.mapping(n, path, map[string]field{
		"run_as_user":  d.text(&p.RunAsUser),
		"run_as_group": d.text(&p.RunAsGroup),
	})
	return p
}

func (d *decoder) network(n *yaml.Node, path string) map[string]*Rule {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // "network_policies:" with nothing under it allows nothing
	}
	rules := map[string]*Rule{}
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		r := d.rule(value, at)
		r.Learned = slices.ContainsFunc(strings.Split(key.HeadComment, "\n"), func(line string) bool {
			return strings.TrimSpace(strings.TrimLeft(line, "#")) == learnedComment
		})
		rules[key.Value] = r
	})
	if len(rules) == 0 {
		return nil
	}
	return rules
}

func (d *decoder) rule(n *yaml.Node, path string) *Rule {
	r := &Rule{}
	d.mapping(n, path, map[string]field{
		"name": d.text(&r.Name),
		"endpoints": func(n *yaml.Node, path string) {
			if r.Endpoints = list(d, n, path, d.endpoint); len(r.Endpoints) == 0 {
				r.Endpoints = nil
			}
		},
		"binaries": func(n *yaml.Node, path string) { r.Binaries = list(d, n, path, d.binary) },
	})
	return r
}

func (d *decoder) binary(to *Binary) field {
	return func(n *yaml.Node, path string) {
		d.mapping(n, path, map[string]field{
			"path": d.text(&to.Path),
			"harness": func(n *yaml.Node, path string) {
				var ignored bool
				d.boolean(&ignored)(n, path)
				d.warn(n, path, "is deprecated and has no effect: remove it")
			},
		})
	}
}
