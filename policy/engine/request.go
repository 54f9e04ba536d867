// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/httptarget"
)

// Request is an HTTP request as far as policy sees it.
type Request struct {
	Method string
	// Path and RawQuery are Target's.
	Path     string
	RawQuery string
	// Target has the other paths that a server may read: the request is allowed only
	// if it is with each of them.
	Target httptarget.Target
	// Body is the whole body, where Match.Inspection asked for it: nil means that
	// it was not seen. ContentType is its media type, as the header says.
	Body        []byte
	ContentType string
	// Upgrade: the request asks for a WebSocket.
	Upgrade bool
	// Upgrades are the other protocols that it asks to switch to, any of which the server may choose.
	Upgrades []string
}

// Inspection is what has to be seen of a request, besides its first line,
// before it can be decided.
type Inspection struct {
	// MaxBody is how many bytes of the body have to be read: the whole body, and
	// a longer one is refused. 0: the body decides nothing.
	MaxBody int
	// Text: after an upgrade to WebSocket, Match.Text decides each of the
	// client's text messages. Binary ones cannot be decided: servers take them
	// for text, so they have to be refused.
	Text bool
}

// Inspection tells what Request needs to see of a request.
func (m Match) Inspection(r Request) Inspection {
	if !m.Allowed || !m.content {
		return Inspection{}
	}
	i := m.inspection(r)
	for one := range r.otherReadings() {
		other := m.inspection(one)
		i.MaxBody, i.Text = max(i.MaxBody, other.MaxBody), i.Text || other.Text
	}
	return i
}

func (m *Match) inspection(r Request) Inspection {
	c := m.cover(&r, policy.MethodWebSocketText)
	if !c.covered() {
		return Inspection{}
	}
	if c.inspector == nil {
		return Inspection{}
	}
	var i Inspection
	body := false
	if body, i.Text = c.inspector.sees(c, r); !body {
		return i
	}
	for ep := range m.covering(r.Path) {
		if ep.protocol == c.protocol {
			i.MaxBody = max(i.MaxBody, ep.maxBody)
		}
	}
	return i
}

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
	// Missing are the fewest matches that rules of that endpoint would have to
	// allow for the request to be allowed (of a batch of more than 100, the
	// first). It is empty where something other than a missing rule is why it is
	// not: a deny rule, or what no rule could name.
	Missing []policy.L7Match
	// Malformed: what the request carries cannot be read. It is denied in every
	// mode, and nothing can be learned from it.
	Malformed bool
}

// Target decides a request by its target as it was sent, and returns what was
// decided on. The error is for a target that no request may have.
func (m Match) Target(method, target string) (Request, Verdict, error) {
	t, err := httptarget.Parse(method, target)
	if err != nil {
		return Request{}, Verdict{}, err
	}
	r := NewRequest(method, t)
	return r, m.Request(r), nil
}

// NewRequest is a request for a target, without what Match.Inspection may ask for.
func NewRequest(method string, t httptarget.Target) Request {
	return Request{Method: method, Path: t.Path(), RawQuery: t.Query(), Target: t}
}

// Request decides one request of an allowed connection.
//
// Where an endpoint has an L7 protocol, only such endpoints grant: those whose
// path covers the request's, and among them any may. A deny rule of any of
// them wins. The most specific path's endpoints say by which protocol the
// request is decided, and whether a refusal is enforced; if they differ, it is.
func (m Match) Request(r Request) Verdict {
	if r.Target.Plain() {
		return m.request(&r)
	}
	return m.ofReadings(r, nil)
}

// request decides one reading of a request.
func (m *Match) request(r *Request) Verdict {
	if v, decided := m.connection(); decided {
		return v
	}
	c := m.cover(r, r.Method)
	switch {
	case !c.covered():
		return c.refuse(r.reason(r.Method, "did not match an L7 endpoint path"))
	case c.ambiguous:
		return c.several(r)
	case len(r.Upgrades) > 0 && c.inspector != nil && c.inspector.request != nil: // its rules cannot say that
		return c.refuse(r.reason(r.Method, r.asked()+"not permitted by policy"))
	case c.inspector != nil && c.inspector.request != nil:
		return c.inspector.request(*m, c, *r)
	default:
		return c.decideHTTP(r, r.Method)
	}
}

// connection decides what needs no look at the request.
func (m *Match) connection() (v Verdict, decided bool) {
	switch {
	case !m.Allowed:
		return Verdict{Decision: Deny, Reason: m.Reason}, true
	case !m.Inspect:
		return Verdict{Decision: Allow, Policy: m.Policy}, true
	}
	return Verdict{}, false
}

// asked begins what is said of a request that asks for an upgrade.
func (r *Request) asked() string {
	if len(r.Upgrades) == 0 {
		return ""
	}
	return "upgrade to " + printable.Text(strings.Join(r.Upgrades, ", ")) + " "
}

// reason says what was asked for and what became of it.
func (r *Request) reason(method, what string) string {
	return printable.Text(method) + " " + printable.Text(r.Path) + " " + what
}
