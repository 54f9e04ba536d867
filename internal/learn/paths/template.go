// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/wildcard"
)

// Template is one method and path of a rule, in the language of a policy.
type Template struct {
	Method string
	// Path has `*` for what varies within a segment. `**` can only be its end.
	Path string
	// Why says in one line for a reviewer what was generalised and from what; empty
	// where nothing was.
	Why string
	// Instances is the number of requests that it stands for.
	Instances int
	// Confidence, from 0 to 1, is how sure it is that nothing else is meant than what was seen.
	Confidence float64
}

var types = []string{typeInteger, typeDate, typeUUID, typeHex, typeToken, typeEmail, typeIP, typeVersion, typeLong,
	typeName, typeAny, typeRest}

// split takes a pattern's segment apart: what is literal before and after its type.
func split(s string) (before, kind, after string) {
	i := strings.IndexByte(s, '{')
	if i < 0 {
		return s, "", ""
	}
	j := strings.LastIndexByte(s, '}') + 1
	if j <= i {
		return s, "", ""
	}
	return s[:i], s[i:j], s[j:]
}

// glob is a pattern's segment in the language of a rule's path.
func glob(s string) string {
	before, kind, after := split(s)
	star := "*"
	switch kind {
	case "":
		star = ""
	case typeRest:
		star = "**"
	}
	return wildcard.EscapeGlob(before) + star + wildcard.EscapeGlob(after)
}

// Templates returns the rules' templates, sorted by path and method.
func (s *Set) Templates() []Template { return s.TemplatesAbove(0) }

// TemplatesAbove is Templates with another demand on the evidence for generalising a name, in
// log-odds: above 0 less is generalised, and below 0 more.
func (s *Set) TemplatesAbove(odds float64) []Template {
	s.fit()
	merged := map[entry]*Template{}
	for _, g := range s.groups {
		for _, r := range infer(g.patterns, odds) {
			t := r.template()
			e := entry{t.Method, t.Path}
			if same := merged[e]; same != nil {
				same.join(t)
			} else {
				merged[e] = &t
			}
		}
	}
	out := make([]Template, 0, len(merged))
	for _, e := range slices.SortedFunc(maps.Keys(merged), func(a, b entry) int {
		return cmp.Or(cmp.Compare(strings.Count(a.pattern, "*"), strings.Count(b.pattern, "*")), compare(a, b))
	}) {
		if wider := covering(merged, e); wider != nil {
			wider.Instances += merged[e].Instances
		} else {
			out = append(out, *merged[e])
		}
	}
	slices.SortFunc(out, func(a, b Template) int { return compare(entry{a.Method, a.Path}, entry{b.Method, b.Path}) })
	return out
}

func compare(a, b entry) int {
	return cmp.Or(strings.Compare(a.pattern, b.pattern), strings.Compare(a.method, b.method))
}

// covering is the template that has a `*` in one more place, or nil.
func covering(templates map[entry]*Template, e entry) *Template {
	segments := e.segments()
	for i, s := range segments {
		if s != "" && s != "*" && s != "**" {
			segments[i] = "*"
			if t := templates[entry{e.method, "/" + strings.Join(segments, "/")}]; t != nil {
				return t
			}
			segments[i] = s
		}
	}
	return nil
}

// join takes in a template of the same method and path, from other evidence.
func (t *Template) join(o Template) {
	t.Instances += o.Instances
	t.Why = min(t.Why, o.Why)
	t.Confidence = min(t.Confidence, o.Confidence)
}

// How sure it is that a segment varies, where its form says so, or only a bound.
const (
	confidenceTyped = 0.95
	confidenceBound = 0.2
)

func (r *request) template() Template {
	t := Template{Method: r.method, Instances: r.count, Confidence: 1 / (1 + math.Exp(-r.odds))}
	var path strings.Builder
	var why []string
	for i, s := range r.segments {
		path.WriteString("/" + glob(s))
		switch _, kind, _ := split(s); kind {
		case "":
		case typeName:
			why = append(why, fmt.Sprintf("%d values of segment %d look like names", r.values[i], i+1))
		case typeAny, typeRest:
			why = append(why, fmt.Sprintf("too many values of segment %d", i+1))
			t.Confidence = min(t.Confidence, confidenceBound)
		default:
			why = append(why, fmt.Sprintf("segment %d is %s", i+1, strings.Trim(kind, "{}")))
			t.Confidence = min(t.Confidence, confidenceTyped)
		}
	}
	t.Path, t.Why = path.String(), strings.Join(why, ", ")
	return t
}
