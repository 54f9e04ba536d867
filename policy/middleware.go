// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// OpenShell's limits on middlewares.
const (
	maxMiddlewares        = 10
	maxMiddlewarePatterns = 32
)

// middlewares checks OpenShell's network_middlewares, and refuses each: a
// policy that asks for one must not run without it.
func (d *decoder) middlewares(n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	orders := map[int]string{}
	count := 0
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		if count++; count == maxMiddlewares+1 {
			d.problem(n, path, "too many middlewares: more than %d", maxMiddlewares)
		}
		d.middleware(key, value, at, orders)
		d.problem(key, at, "middlewares are not implemented: traffic would pass without %s, remove it",
			printable.Text(key.Value))
	})
}

func (d *decoder) middleware(key, value *yaml.Node, path string, orders map[int]string) {
	var name, kind, onError string
	var order int
	selected := false
	d.mapping(value, path, map[string]field{
		"name":       d.text(&name),
		"middleware": d.text(&kind),
		"order": func(n *yaml.Node, path string) {
			i, ok := d.integer(n, path)
			if ok && i != int(int32(i)) {
				d.problem(n, path, "order %d is out of range", i)
			}
			order = i
		},
		"config":   func(n *yaml.Node, path string) { d.entries(n, path, func(_, _ *yaml.Node, _ string) {}) },
		"on_error": d.text(&onError),
		"endpoints": func(n *yaml.Node, path string) {
			selected = true
			d.selector(n, path)
		},
	})
	if key.Value == "" {
		d.problem(key, path, "a middleware's key must not be empty")
	}
	if kind == "" {
		d.problem(value, path, "middleware must not be empty")
	}
	if !oneOf(onError, "fail_closed", "fail_open") {
		d.problem(value, path+".on_error", "must be fail_closed or fail_open, not %q", onError)
	}
	if !selected {
		d.problem(value, path, "endpoint selector is required: add endpoints")
	}
	if first, taken := orders[order]; taken {
		d.problem(value, path, "has order %d like %s: each needs its own", order, printable.Text(first))
	}
	orders[order] = key.Value
}

func (d *decoder) selector(n *yaml.Node, path string) {
	var include, exclude []string
	d.mapping(n, path, map[string]field{"include": d.texts(&include), "exclude": d.texts(&exclude)})
	if len(include) == 0 {
		d.problem(n, path, "endpoint selector must include at least one host pattern")
	}
	if count := len(include) + len(exclude); count > maxMiddlewarePatterns {
		d.problem(n, path, "too many host patterns (%d > %d)", count, maxMiddlewarePatterns)
	}
	for i, pattern := range include {
		d.hostPattern(n, Element(path+".include", i), pattern)
	}
	for i, pattern := range exclude {
		d.hostPattern(n, Element(path+".exclude", i), pattern)
	}
}

// hostPattern checks a pattern of a middleware's selector, which unlike an
// endpoint's host may be a wildcard of any breadth.
func (d *decoder) hostPattern(n *yaml.Node, path, pattern string) {
	var err error
	for label := range strings.SplitSeq(wildcard.CanonicalHost(pattern), ".") {
		if err == nil {
			err = wildcard.CheckLabel(label)
		}
	}
	if err != nil {
		d.problem(n, path, "host pattern %s is invalid: %v", printable.Text(pattern), err)
	}
}
