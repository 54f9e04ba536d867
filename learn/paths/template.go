package paths

import (
	"cmp"
	"slices"
	"strings"
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

var types = []string{typeInteger, typeDate, typeUUID, typeHex, typeToken, typeEmail, typeIP, typeVersion, typeLong, typeAny, typeRest}

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
	return escape(before) + star + escape(after)
}

// escape quotes the only character of a canonical path that means something in a glob.
func escape(s string) string { return strings.ReplaceAll(s, "*", `\*`) }

// Templates returns the rules' templates, sorted by path and method.
func (s *Set) Templates() []Template {
	merged := map[entry]*Template{}
	for _, g := range s.groups {
		for _, r := range infer(g.patterns) {
			segments, e, n := r.segments, entry{method: r.method}, r.count
			var why []string
			for i, segment := range segments {
				if _, kind, _ := split(segment); kind != "" {
					why = append(why, strings.Trim(kind, "{}"))
				}
				segments[i] = glob(segment)
			}
			key := entry{e.method, "/" + strings.Join(segments, "/")}
			t := merged[key]
			if t == nil {
				t = &Template{Method: e.method, Path: key.pattern, Why: strings.Join(why, ", "), Confidence: 1}
				merged[key] = t
			}
			t.Why = min(t.Why, strings.Join(why, ", "))
			t.Instances += n
		}
	}
	out := make([]Template, 0, len(merged))
	for _, t := range merged {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b Template) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	return out
}
