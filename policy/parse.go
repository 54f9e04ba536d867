package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
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
	var document yaml.Node
	if err := yaml.Load(data, &document); err != nil {
		return nil, nil, Errors{syntaxProblem(err)}
	}
	d := &decoder{positions: map[string]position{}, limit: len(data) + aliasValues}
	p := d.policy(&document)
	if len(d.problems) == 0 {
		v := &validator{}
		v.policy(p)
		d.place(v)
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
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
			path = path[:max(strings.LastIndexAny(path, ".["), 0)]
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

// syntaxProblem places an error of the YAML reader.
func syntaxProblem(err error) Problem {
	var all *yaml.LoadErrors
	if errors.As(err, &all) && len(all.Errors) > 0 {
		err = all.Errors[0]
	}
	var one *yaml.LoadError
	if errors.As(err, &one) {
		return Problem{one.Mark.Line, one.Mark.Column, "", "not valid YAML: " + printable(one.Message)}
	}
	return Problem{Reason: "not valid YAML: " + printable(err.Error())}
}

func (d *decoder) policy(document *yaml.Node) *Policy {
	p := &Policy{}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 {
		d.problem(document, "", "must hold one YAML document")
		return p
	}
	root := document.Content[0]
	versioned := false
	d.mapping(root, "", map[string]field{
		"version": func(n *yaml.Node, path string) {
			versioned = true
			p.Version, _ = d.integer(n, path)
		},
		"filesystem_policy":   func(n *yaml.Node, path string) { p.Filesystem = d.filesystem(n, path) },
		"landlock":            func(n *yaml.Node, path string) { p.Landlock = d.landlock(n, path) },
		"process":             func(n *yaml.Node, path string) { p.Process = d.process(n, path) },
		"network_policies":    func(n *yaml.Node, path string) { p.Network = d.network(n, path) },
		"network_middlewares": d.middlewares,
	})
	if root.Kind == yaml.MappingNode && !versioned {
		d.problem(root, "version", "is required: add version: 1")
	}
	return p
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
