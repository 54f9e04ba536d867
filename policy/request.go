package policy

import (
	"fmt"
	"net/url"
	"strings"
)

// Request is an HTTP request as far as policy sees it.
type Request struct {
	Method string
	// Path is canonical: what CanonicalTarget returned, and what is sent on.
	Path string
	// RawQuery is what follows the target's "?".
	RawQuery string
	// Body is the whole body, where Match.Inspection asked for it: nil means that
	// it was not seen. ContentType is its media type, as the header says.
	Body        []byte
	ContentType string
}

// Inspection is what has to be seen of a request, besides its first line,
// before it can be decided.
type Inspection struct {
	// MaxBody is how many bytes of the body have to be read: the whole body, and
	// a longer one is refused. 0: the body decides nothing.
	MaxBody int
	// Text: after an upgrade to WebSocket, Match.Text decides each of the
	// client's text messages.
	Text bool
}

// Inspection tells what Request needs to see of a request.
func (m Match) Inspection(r Request) Inspection { return Inspection{} }

// Text decides a text message that a client sends on the WebSocket which r opened.
func (m Match) Text(r Request, message []byte) Verdict { return m.Request(r) }

// Decision is what becomes of a request.
type Decision int

const (
	Deny Decision = iota
	Allow
	// Audit: the rules deny it, but it is allowed and logged.
	Audit
)

func (d Decision) String() string {
	switch d {
	case Allow:
		return "allow"
	case Audit:
		return "audit"
	default:
		return "deny"
	}
}

// Verdict is the decision on a request.
type Verdict struct {
	Decision Decision
	// Policy is the matched rule's key, also when the rule denies.
	Policy string
	// Reason says why the request is not allowed.
	Reason string

	// Protocol is the L7 protocol of the endpoint that decided, and Path that
	// endpoint's path; both are empty where none covers the request.
	Protocol, Path string
	// Missing are the fewest matches that a rule of that endpoint would have to
	// allow for the request to be allowed. It is empty where a deny rule, or
	// something other than a missing rule, is why it is not.
	Missing []L7Match
	// Malformed: what the request carries cannot be read. It is denied in every
	// mode, and nothing can be learned from it.
	Malformed bool
}

// Target decides a request by its target as it was sent, and returns what was
// decided on: its path is the one to send on. The error is for a target that no
// request may have. Whether that goes for an encoded slash is the endpoint's to
// say; where none names the host, nobody has said no.
func (m Match) Target(method, target string) (Request, Verdict, error) {
	path, query, err := CanonicalTarget(target, m.AllowEncodedSlash || !m.Allowed)
	if err != nil {
		return Request{}, Verdict{}, err
	}
	r := Request{Method: method, Path: path, RawQuery: query}
	return r, m.Request(r), nil
}

// Request decides one request of an allowed connection.
//
// Where an endpoint has an L7 protocol, only such endpoints grant: those whose
// path covers the request's, and among them any may. A deny rule of any of
// them wins. The most specific path's endpoints say whether a refusal is
// enforced; if they differ, it is.
func (m Match) Request(r Request) Verdict {
	switch {
	case !m.Allowed:
		return Verdict{Decision: Deny, Reason: m.Reason}
	case !m.Inspect:
		return Verdict{Decision: Allow, Policy: m.Policy}
	}
	query := parsedQuery{raw: r.RawQuery}
	covered, allowed, denied, enforced := false, false, false, false
	specificity := 0
	for i := range m.count {
		ep := m.at(i)
		if !ep.inspect || !ep.path.match(r.Path) {
			continue
		}
		if !covered || ep.path.specificity > specificity {
			covered, enforced, specificity = true, ep.enforce, ep.path.specificity
		} else if ep.path.specificity == specificity {
			enforced = enforced || ep.enforce
		}
		allowed = allowed || ep.allow.match(&r, &query, allValues)
		denied = denied || ep.deny.match(&r, &query, anyValue)
	}
	v := Verdict{Policy: m.Policy}
	switch {
	case !covered:
		v.Reason = fmt.Sprintf("%s %s did not match an L7 endpoint path", printable(r.Method), printable(r.Path))
		return v
	case denied:
		v.Reason = fmt.Sprintf("%s %s blocked by deny rule", printable(r.Method), printable(r.Path))
	case !allowed:
		v.Reason = fmt.Sprintf("%s %s not permitted by policy", printable(r.Method), printable(r.Path))
	default:
		v.Decision = Allow
		return v
	}
	if !enforced {
		v.Decision = Audit
	}
	return v
}

// presets are what the access values stand for. DELETE is not part of
// read-write.
var presets = map[string][]L7Match{
	AccessReadOnly:  methods("GET", "HEAD", "OPTIONS"),
	AccessReadWrite: methods("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"),
	AccessFull:      methods("*"),
}

func methods(names ...string) []L7Match {
	matches := make([]L7Match, len(names))
	for i, name := range names {
		matches[i] = L7Match{Method: name, Path: "**"}
	}
	return matches
}

// requestSet is a compiled list of matches. It is divided by path, so that
// thousands of learned paths do not slow a request down.
type requestSet struct {
	exact  map[string][]*requestMatch // by the whole path
	under  map[string][]*requestMatch // globs, by their first segment
	others []*requestMatch            // globs from the first segment on
}

type requestMatch struct {
	method string
	path   glob
	query  map[string][]glob
}

func compileRequests(matches []L7Match) (requestSet, error) {
	var set requestSet
	for _, source := range matches {
		compiled, err := compileRequest(source)
		if err != nil {
			return set, err
		}
		// The literal prefix ends before a separator, so it holds the whole
		// first segment or is empty.
		segment := firstSegment(compiled.path.prefix)
		switch {
		case compiled.path.expr == nil:
			insert(&set.exact, source.Path, compiled)
		case segment != "":
			insert(&set.under, segment, compiled)
		default:
			set.others = append(set.others, compiled)
		}
	}
	return set, nil
}

func insert(to *map[string][]*requestMatch, key string, match *requestMatch) {
	if *to == nil {
		*to = map[string][]*requestMatch{}
	}
	(*to)[key] = append((*to)[key], match)
}

func compileRequest(source L7Match) (*requestMatch, error) {
	path, err := compileGlob(source.Path, '/')
	if err != nil {
		return nil, err
	}
	compiled := &requestMatch{method: source.Method, path: path}
	if len(source.Query) > 0 {
		compiled.query = make(map[string][]glob, len(source.Query))
	}
	for key, matcher := range source.Query {
		for _, pattern := range matcher.Any {
			// OpenShell matches values with OPA's default delimiter.
			g, err := compileGlob(pattern, '.')
			if err != nil {
				return nil, err
			}
			compiled.query[key] = append(compiled.query[key], g)
		}
	}
	return compiled, nil
}

// firstSegment returns "x" of "/x/y".
func firstSegment(path string) string {
	segment, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return segment
}

// quantifier says how a query parameter given several times is matched.
type quantifier int

const (
	allValues quantifier = iota // to allow, every value must match
	anyValue                    // to deny, one is enough
)

func (s *requestSet) match(r *Request, q *parsedQuery, values quantifier) bool {
	return matchAny(s.exact[r.Path], r, q, values) ||
		matchAny(s.under[firstSegment(r.Path)], r, q, values) ||
		matchAny(s.others, r, q, values)
}

func matchAny(matches []*requestMatch, r *Request, q *parsedQuery, values quantifier) bool {
	for _, m := range matches {
		if methodMatches(m.method, r.Method) && m.path.match(r.Path) && m.queryMatches(q, values) {
			return true
		}
	}
	return false
}

// methodMatches lets GET cover HEAD, which differs only in having no response
// body (RFC 9110 section 9.3.2).
func methodMatches(want, method string) bool {
	return want == "*" || strings.EqualFold(want, method) ||
		strings.EqualFold(want, "GET") && strings.EqualFold(method, "HEAD")
}

func (m *requestMatch) queryMatches(q *parsedQuery, values quantifier) bool {
	if len(m.query) == 0 {
		return true
	}
	params, ok := q.parse()
	if !ok {
		// What cannot be read is not allowed, and may be what is denied.
		return values == anyValue
	}
	for key, globs := range m.query {
		if !valuesMatch(globs, params[key], values) {
			return false
		}
	}
	return true
}

func valuesMatch(globs []glob, given []string, values quantifier) bool {
	for _, value := range given {
		matched := false
		for _, g := range globs {
			matched = matched || g.match(value)
		}
		if matched == (values == anyValue) {
			return matched
		}
	}
	return len(given) > 0 && values == allValues
}

// parsedQuery parses a query string when the first rule asks for it.
type parsedQuery struct {
	raw    string
	params url.Values
	err    error
}

// parse returns the decoded parameters. A query with a bad escape or a ';',
// which servers read differently, is not readable.
func (q *parsedQuery) parse() (url.Values, bool) {
	if q.params == nil {
		q.params, q.err = url.ParseQuery(q.raw)
	}
	return q.params, q.err == nil
}
