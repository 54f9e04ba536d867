// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/httptarget"
)

// EvalRequest is one line of `openshell policy eval`: an action to decide on
// without performing it. All but Binary, Host and Port are optional.
type EvalRequest struct {
	Binary    string   `json:"binary"`
	Ancestors []string `json:"ancestors,omitempty"`
	Host      string   `json:"host"`
	Port      uint16   `json:"port"`
	Protocol  string   `json:"protocol,omitempty"` // "tcp" or "udp"
	// ResolvedIPs is what Host resolved to; the address guard is applied to it.
	ResolvedIPs []string  `json:"resolved_ips,omitempty"`
	HTTP        *EvalHTTP `json:"http,omitempty"`
	// WebSocketText is a client's text message after the upgrade in HTTP;
	// GraphQL and JSONRPC are the JSON value of HTTP's body.
	WebSocketText *string         `json:"websocket_text,omitempty"`
	GraphQL       json.RawMessage `json:"graphql,omitempty"`
	JSONRPC       json.RawMessage `json:"jsonrpc,omitempty"`
}

// EvalHTTP is a request's first line; Target is as it was sent.
type EvalHTTP struct {
	Method string `json:"method"`
	Target string `json:"target"`
}

// EvalDecision is the answer to an EvalRequest.
type EvalDecision struct {
	Decision string `json:"decision"` // "allow", "deny", "audit"
	Layer    string `json:"layer"`    // "l4", "ssrf", "l7": what decided
	Policy   string `json:"policy"`
	Reason   string `json:"reason"`
}

// Evaluation is an EvalDecision and what it was made of.
type Evaluation struct {
	EvalDecision
	Connected bool    // a rule allows the connection
	Request   Request // where the request had HTTP and was looked at
	Verdict   Verdict // on Request, where Connected
	Message   Verdict // on the WebSocket's text, where that is decided
}

// Evaluate decides an action in the order in which the proxy does: the
// connection, the addresses, the request. Permissive turns the policy's "no"
// into "audit", but never the address guard's, nor malformed traffic's. The
// error is for a request that is itself malformed.
func (e *Engine) Evaluate(r EvalRequest, permissive bool) (EvalDecision, error) {
	v, err := e.EvaluateFully(r, permissive)
	return v.EvalDecision, err
}

// EvaluateFully is Evaluate, with what the decision was made of.
func (e *Engine) EvaluateFully(r EvalRequest, permissive bool) (Evaluation, error) {
	var v Evaluation
	addrs, err := r.check()
	if err != nil {
		return v, err
	}
	v.EvalDecision = e.decide(&r, addrs, permissive, &v)
	return v, nil
}

func (e *Engine) decide(r *EvalRequest, addrs []netip.Addr, permissive bool, full *Evaluation) EvalDecision {
	m := e.Connect(Connection{Binary: r.Binary, Ancestors: r.Ancestors, Host: r.Host, Port: r.Port, Protocol: r.Protocol})
	full.Connected = m.Allowed
	if !m.Allowed && !permissive {
		return answer(Deny, "l4", "", m.Reason)
	}
	if m.metadata && len(addrs) == 0 {
		addrs = []netip.Addr{{}} // refused by its name, whatever it resolves to
	}
	for _, a := range addrs {
		if err := m.CheckAddress(a, r.Port); err != nil {
			return answer(Deny, "ssrf", m.Policy, err.Error())
		}
	}
	if r.HTTP != nil && (m.Inspect || !m.Allowed) {
		v, err := m.evaluate(r, permissive, full)
		switch {
		case err != nil:
			return answer(Deny, "l7", m.Policy, err.Error())
		case !m.Allowed:
		case v.Decision == Deny && permissive && !v.Malformed:
			return answer(Audit, "l7", v.Policy, v.Reason)
		default:
			return answer(v.Decision, "l7", v.Policy, v.Reason)
		}
	}
	if !m.Allowed {
		return answer(Audit, "l4", "", m.Reason)
	}
	return answer(Allow, "l4", m.Policy, "")
}

// evaluate decides a request, and the message after it. The error is for a
// method or a target that no request may have.
func (m *Match) evaluate(r *EvalRequest, permissive bool, full *Evaluation) (Verdict, error) {
	if !httpguts.ValidHeaderFieldName(r.HTTP.Method) { // both are tokens (RFC 9110 section 9.1)
		return Verdict{}, fmt.Errorf("request method %s is not a token", printable.Brief(r.HTTP.Method))
	}
	target, err := httptarget.Parse(r.HTTP.Method, r.HTTP.Target)
	if err != nil {
		return Verdict{}, err
	}
	request := NewRequest(r.HTTP.Method, target)
	request.Upgrade = r.WebSocketText != nil
	switch {
	case given(r.GraphQL):
		request.Body = r.GraphQL
	case given(r.JSONRPC):
		request.Body = r.JSONRPC
	case strings.EqualFold(request.Method, "GET"):
		request.Body = []byte{} // there is none, rather than one that was not given
	}
	if len(request.Body) > 0 {
		request.ContentType = "application/json"
	}
	inspection := m.Inspection(request)
	if limit := inspection.MaxBody; limit > 0 && len(request.Body) > limit {
		return Verdict{Policy: m.Policy, Malformed: true, Reason: fmt.Sprintf("request body exceeds %d byte inspection limit", limit)}, nil
	}
	v := m.Request(request)
	full.Request, full.Verdict = request, v
	if r.WebSocketText == nil || !inspection.Text || v.Malformed || v.Decision == Deny && !permissive {
		return v, nil
	}
	text := m.Text(request, []byte(*r.WebSocketText))
	full.Message = text
	if v.Decision == Allow || text.Malformed || v.Decision == Audit && text.Decision == Deny {
		v = text
	}
	return v, nil
}

func answer(d Decision, layer, policy, reason string) EvalDecision {
	return EvalDecision{d.String(), layer, policy, reason}
}

// given reports whether a request has a body. Null is the same as absent, as for
// the other fields.
func given(body json.RawMessage) bool {
	return body != nil && string(bytes.TrimSpace(body)) != "null"
}

// check validates the request, and returns the addresses that the guard has to
// pass: an address as the host resolves to itself.
func (r *EvalRequest) check() ([]netip.Addr, error) {
	switch {
	case r.Binary == "":
		return nil, errors.New("binary is required")
	case r.Host == "":
		return nil, errors.New("host is required")
	case r.Port == 0:
		return nil, errors.New("port is required: a number from 1 to 65535")
	case !slices.Contains([]string{"", policy.ProtocolTCP, policy.ProtocolUDP}, r.Protocol):
		return nil, fmt.Errorf("protocol must be tcp or udp, not %q", r.Protocol)
	case r.HTTP != nil && (r.HTTP.Method == "" || r.HTTP.Target == ""):
		return nil, errors.New("http needs a method and a target")
	case r.HTTP != nil && r.Protocol == policy.ProtocolUDP:
		return nil, errors.New("http needs protocol tcp")
	case given(r.GraphQL) && given(r.JSONRPC):
		return nil, errors.New("graphql and jsonrpc exclude each other: a request has one body")
	case r.HTTP == nil && (r.WebSocketText != nil || given(r.GraphQL) || given(r.JSONRPC)):
		return nil, errors.New("websocket_text, graphql and jsonrpc need http: the request they belong to")
	}
	var addrs []netip.Addr
	for _, s := range r.ResolvedIPs {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("resolved_ips: %q is not an address", s)
		}
		addrs = append(addrs, a)
	}
	if a, literal := wildcard.HostAddr(wildcard.CanonicalHost(r.Host)); literal {
		addrs = append(addrs, a)
	}
	return addrs, nil
}
