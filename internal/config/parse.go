// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/internal/usertext"
)

// Parse reads a configuration file's content over the defaults. Every problem is
// reported at once, on one line, each as "line N: field: reason".
func Parse(data []byte) (*Config, error) {
	c := Default()
	var document yaml.Node
	if err := yaml.Load(data, &document); err != nil && !isEmpty(data) {
		return nil, errors.New(usertext.OneLine(err))
	}
	d := decoder{lines: map[string]int{}}
	for _, root := range document.Content {
		d.mapping(root, "", reflect.ValueOf(c).Elem())
	}
	if _, ok := d.lines["permissive.default_ttl"]; !ok {
		// An administrator who only lowers the maximum means the default too.
		c.Permissive.DefaultTTL = min(c.Permissive.DefaultTTL, c.Permissive.MaxTTL)
	}
	c.validate(&d)
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// isEmpty reports whether data is nothing but blank lines and comments, which
// the YAML package calls an error.
func isEmpty(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// decoder fills structs from YAML nodes. The YAML package's own strict mode
// names Go types where an administrator needs the field's name.
type decoder struct {
	lines    map[string]int // of each field that the file sets, by its dotted path
	problems []problem
}

type problem struct {
	line int // 0 for a field that the file does not set
	text string
}

func (d *decoder) fail(line int, field, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if field != "" {
		text = field + ": " + text
	}
	d.problems = append(d.problems, problem{line, text})
}

// err joins the problems in the file's order.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	texts := make([]string, len(d.problems))
	for i, p := range d.problems {
		texts[i] = p.text
		if p.line > 0 {
			texts[i] = fmt.Sprintf("line %d: %s", p.line, p.text)
		}
	}
	return errors.New(strings.Join(texts, "; "))
}

// mapping stores the values of a YAML mapping in the fields of a struct.
func (d *decoder) mapping(n *yaml.Node, path string, into reflect.Value) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a section whose every key is commented out
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, path, "want a mapping of %s", strings.Join(keysOf(into.Type()), ", "))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field, ok := fieldByKey(into, key.Value)
		if !ok {
			d.fail(key.Line, path, "unknown key %q: use one of %s", key.Value, strings.Join(keysOf(into.Type()), ", "))
			continue
		}
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		if first, ok := d.lines[name]; ok {
			d.fail(key.Line, name, "already set on line %d: set it once", first)
			continue
		}
		d.lines[name] = key.Line
		if field.Kind() == reflect.Struct {
			d.mapping(value, name, field)
		} else {
			d.leaf(value, name, field)
		}
	}
}

// leaf stores a scalar or a list of strings.
func (d *decoder) leaf(n *yaml.Node, name string, into reflect.Value) {
	isNull := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	if isNull || n.Decode(into.Addr().Interface()) != nil {
		d.fail(n.Line, name, "want %s", describe(into.Type()))
	}
}

// describe tells an administrator what a field of type t takes.
func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 90s, 5m or 1h"
	case t == reflect.TypeFor[Size]():
		return "a size such as 256MiB or 1GiB"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Slice:
		return "a list of strings"
	default:
		return "a string"
	}
}

func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() {
			keys = append(keys, keyOf(f))
		}
	}
	return keys
}

func fieldByKey(v reflect.Value, key string) (reflect.Value, bool) {
	for f, value := range v.Fields() {
		if f.IsExported() && keyOf(f) == key {
			return value, true
		}
	}
	return reflect.Value{}, false
}
