// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// API is what the evaluation needs of an API's description.
type API struct {
	Name       string            `json:"name"` // "github.com/api.github.com"
	Operations []Operation       `json:"operations"`
	Parameters map[string]Schema `json:"parameters,omitempty"` // by name, where all operations agree
}

// Operation is one method of one path.
type Operation struct {
	Method     string            `json:"method"`
	Path       string            `json:"path"` // with the server's path before it: "/v1/users/{id}"
	Parameters map[string]Schema `json:"parameters,omitempty"`
}

// Schema is what a description says of a path parameter.
type Schema struct {
	Type    string   `json:"type,omitempty"`
	Format  string   `json:"format,omitempty"`
	Pattern string   `json:"pattern,omitempty"`
	Enum    []string `json:"enum,omitempty"`
	Example string   `json:"example,omitempty"`
}

// Provider is the organisation that an API is of; its APIs resemble each other.
func (a *API) Provider() string {
	provider, _, _ := strings.Cut(a.Name, "/")
	return provider
}

// schema is that of a parameter of an operation.
func (a *API) schema(o *Operation, name string) Schema {
	if s, ok := o.Parameters[name]; ok {
		return s
	}
	return a.Parameters[name]
}

// document is an OpenAPI 3 or Swagger 2 description.
type document struct {
	BasePath   string `json:"basePath"`
	Servers    []server
	Paths      map[string]map[string]json.RawMessage
	Parameters map[string]parameter
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]schema
	}
	Definitions map[string]schema
}

type server struct {
	URL       string
	Variables map[string]struct{ Default any }
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name     string
	In       string
	Example  any
	Examples map[string]struct{ Value any }
	Schema   *schema
	schema
}

type schema struct {
	SchemaRef string `json:"$ref"`
	Type      any
	Format    string
	Pattern   string
	Enum      []any
	Example   any
	Default   any
	OneOf     []schema
	AnyOf     []schema
	AllOf     []schema
}

// Parse reads a description. Operations that differ only behind a path's `?` or `#`, where
// descriptions of one path for many actions tell them apart, are one.
func Parse(name string, b []byte) (*API, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	api := &API{Name: name}
	seen := map[string]bool{}
	base := d.base()
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) { // of operations that are one, the first is it
		item := d.Paths[path]
		if i := strings.IndexAny(path, "?#"); i >= 0 {
			path = path[:i]
		}
		path = base + "/" + strings.TrimPrefix(path, "/")
		var shared []parameter
		if raw, ok := item["parameters"]; ok {
			_ = json.Unmarshal(raw, &shared) // descriptions have mistakes; a parameter unknown is a string
		}
		for _, method := range []string{"get", "put", "post", "delete", "patch", "head"} {
			raw, ok := item[method]
			if !ok || seen[method+path] {
				continue
			}
			seen[method+path] = true
			var op struct{ Parameters []parameter }
			_ = json.Unmarshal(raw, &op)
			o := Operation{Method: strings.ToUpper(method), Path: path, Parameters: map[string]Schema{}}
			for _, p := range append(shared, op.Parameters...) {
				if p = d.resolve(p); p.In == "path" {
					o.Parameters[p.Name] = d.reduce(p)
				}
			}
			api.Operations = append(api.Operations, o)
		}
	}
	slices.SortFunc(api.Operations, func(a, b Operation) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	api.share()
	return api, nil
}

// share moves the schemas that all operations agree on to the API.
func (a *API) share() {
	a.Parameters = map[string]Schema{}
	for pass := range 2 {
		for i := range a.Operations {
			o := &a.Operations[i]
			for name, s := range o.Parameters {
				common, ok := a.Parameters[name]
				if pass == 0 && !ok {
					a.Parameters[name] = s
				} else if pass == 1 && equal(common, s) {
					delete(o.Parameters, name)
				}
			}
		}
	}
}

func equal(a, b Schema) bool {
	return a.Type == b.Type && a.Format == b.Format && a.Pattern == b.Pattern && a.Example == b.Example && slices.Equal(a.Enum, b.Enum)
}

// base is the path that the first server's address has.
func (d *document) base() string {
	base := d.BasePath
	if len(d.Servers) > 0 {
		address := d.Servers[0].URL
		variables := d.Servers[0].Variables
		for _, name := range slices.Sorted(maps.Keys(variables)) {
			address = strings.ReplaceAll(address, "{"+name+"}", text(variables[name].Default))
		}
		if i := strings.Index(address, "://"); i >= 0 {
			address = address[i+3:]
			_, after, _ := strings.Cut(address, "/")
			address = after
		}
		base = address
	}
	if unescaped, err := url.PathUnescape(base); err == nil {
		base = unescaped
	}
	if base = strings.Trim(base, "/"); base == "" {
		return ""
	}
	return "/" + base
}

func (d *document) resolve(p parameter) parameter {
	ref := strings.Split(p.Ref, "/")
	if len(ref) < 2 {
		return p
	}
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(ref[len(ref)-1])
	if found, ok := d.Components.Parameters[name]; ok {
		return found
	}
	return d.Parameters[name]
}

func (d *document) reduce(p parameter) Schema {
	s := p.schema
	if p.Schema != nil {
		s = *p.Schema
	}
	s = d.follow(s, 4)
	out := Schema{Type: text(s.Type), Format: s.Format, Pattern: s.Pattern, Example: text(s.Example)}
	if out.Example == "" {
		out.Example = text(p.Example)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Examples)) {
		if out.Example == "" {
			out.Example = text(p.Examples[name].Value)
		}
	}
	if out.Example == "" {
		out.Example = text(s.Default)
	}
	for _, v := range s.Enum {
		if t := text(v); t != "" && len(out.Enum) < maxEnum {
			out.Enum = append(out.Enum, t)
		}
	}
	return out
}

// maxEnum is more than the values that a workload uses of any.
const maxEnum = 64

func (d *document) follow(s schema, depth int) schema {
	for _, alternatives := range [][]schema{s.OneOf, s.AnyOf, s.AllOf} {
		if s.Type == nil && len(alternatives) > 0 && depth > 0 {
			return d.follow(alternatives[0], depth-1)
		}
	}
	ref := strings.Split(s.SchemaRef, "/")
	if len(ref) < 2 || depth == 0 {
		return s
	}
	name := ref[len(ref)-1]
	if found, ok := d.Components.Schemas[name]; ok {
		return d.follow(found, depth-1)
	}
	return d.follow(d.Definitions[name], depth-1)
}

// text is a scalar as it would stand in a path; of a list of types, the first.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if len(v) > 0 {
			return text(v[0])
		}
		return ""
	case nil, map[string]any:
		return ""
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
}
