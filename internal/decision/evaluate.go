// SPDX-License-Identifier: Apache-2.0

package decision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/http/httpguts"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/httptarget"
)

// Action is something that a workload may do, to be decided without doing it: a line of openshell policy eval.
// All but Binary, Host and Port are optional.
type Action struct {
	Binary    string   `json:"binary"`
	Ancestors []string `json:"ancestors,omitempty"`
	Host      string   `json:"host"`
	Port      uint16   `json:"port"`
	Protocol  string   `json:"protocol,omitempty"` // "tcp" or "udp"
	// ResolvedIPs is what Host resolved to; the address guard is applied to it.
	ResolvedIPs []string     `json:"resolved_ips,omitempty"`
	HTTP        *RequestLine `json:"http,omitempty"`
	// WebSocketText is a client's text message after the upgrade in HTTP; GraphQL and JSONRPC are the JSON
	// value of HTTP's body.
	WebSocketText *string         `json:"websocket_text,omitempty"`
	GraphQL       json.RawMessage `json:"graphql,omitempty"`
	JSONRPC       json.RawMessage `json:"jsonrpc,omitempty"`
}

// RequestLine is a request's method, its target as it was sent, and the protocols other than WebSocket that it
// asks to switch to.
type RequestLine struct {
	Method  string   `json:"method"`
	Target  string   `json:"target"`
	Upgrade []string `json:"upgrade,omitempty"`
}

// Answer is a Decision as openshell policy eval writes it.
type Answer struct {
	Decision string `json:"decision"` // "allow", "deny", "audit"
	Layer    string `json:"layer"`    // "l4", "ssrf", "l7": what decided
	Policy   string `json:"policy"`
	Reason   string `json:"reason"`
}

// Evaluation is the answer to an Action, and what it was made of.
type Evaluation struct {
	Answer
	Connection *Connection
	HTTP       engine.Request // where requests are decided and there is one that can be
	Request    Decision       // on HTTP
	Message    Decision       // on the WebSocket's text, where that is decided
}

// Evaluate decides an action in the order in which the proxy does: the connection, the addresses, the request,
// the message. The error is for an action that is itself malformed.
func (s Snapshot) Evaluate(a Action) (Evaluation, error) {
	addrs, err := a.check()
	if err != nil {
		return Evaluation{}, err
	}
	e := Evaluation{Connection: s.Connect(a.connection())}
	d := e.decide(&a, addrs)
	e.Answer = Answer{d.Outcome.String(), d.Layer, d.Policy, d.Reason}
	return e, nil
}

func (e *Evaluation) decide(a *Action, addrs []netip.Addr) Decision {
	c := e.Connection
	d := c.Decision()
	if d.Outcome == Denied {
		return d
	}
	if addresses := c.Addresses(addrs...); addresses.Outcome == Denied {
		return addresses
	}
	if a.HTTP == nil || !c.SeesRequests() {
		return d
	}
	request, err := a.request()
	if err != nil {
		return c.malformed(err.Error())
	}
	inspection := c.Inspection(request)
	if limit := inspection.MaxBody; limit > 0 && len(request.Body) > limit {
		return c.malformed(fmt.Sprintf("request body exceeds %d byte inspection limit", limit))
	}
	e.HTTP, e.Request = request, c.Request(request)
	if a.WebSocketText == nil || !inspection.Text || e.Request.Outcome == Denied {
		return e.Request
	}
	e.Message = c.Message(request, []byte(*a.WebSocketText))
	return worse(e.Request, e.Message)
}

// malformed is the decision on what cannot be read.
func (c *Connection) malformed(reason string) Decision {
	return Decision{Layer: LayerL7, Policy: c.Policy(), Reason: reason, Malformed: true}
}

// worse is what becomes of a message and the request that it came by.
func worse(request, message Decision) Decision {
	severity := map[Outcome]int{Allowed: 0, Audited: 1, Logged: 2, Denied: 3}
	if request.Outcome == Allowed || severity[message.Outcome] > severity[request.Outcome] {
		return message
	}
	return request
}

func (a *Action) connection() engine.Connection {
	return engine.Connection{Binary: a.Binary, Ancestors: a.Ancestors, Host: a.Host, Port: a.Port, Protocol: a.Protocol}
}

// request is the action's request. The error is for a method or a target that no request may have.
func (a *Action) request() (engine.Request, error) {
	if !httpguts.ValidHeaderFieldName(a.HTTP.Method) { // both are tokens (RFC 9110 section 9.1)
		return engine.Request{}, fmt.Errorf("request method %s is not a token", printable.Brief(a.HTTP.Method))
	}
	target, err := httptarget.Parse(a.HTTP.Method, a.HTTP.Target)
	if err != nil {
		return engine.Request{}, err
	}
	r := engine.NewRequest(a.HTTP.Method, target)
	r.Upgrade, r.Upgrades = a.WebSocketText != nil, a.HTTP.Upgrade
	switch {
	case given(a.GraphQL):
		r.Body = a.GraphQL
	case given(a.JSONRPC):
		r.Body = a.JSONRPC
	case strings.EqualFold(r.Method, "GET"):
		r.Body = []byte{} // there is none, rather than one that was not given
	}
	if len(r.Body) > 0 {
		r.ContentType = "application/json"
	}
	return r, nil
}

// given reports whether a request has a body. Null is the same as absent, as for the other fields.
func given(body json.RawMessage) bool {
	return body != nil && string(bytes.TrimSpace(body)) != "null"
}

// check validates the action, and returns the addresses that the guard has to pass: an address as the host
// resolves to itself.
func (a *Action) check() ([]netip.Addr, error) {
	switch {
	case a.Binary == "":
		return nil, errors.New("binary is required")
	case a.Host == "":
		return nil, errors.New("host is required")
	case a.Port == 0:
		return nil, errors.New("port is required: a number from 1 to 65535")
	case a.Protocol != "" && a.Protocol != policy.ProtocolTCP && a.Protocol != policy.ProtocolUDP:
		return nil, fmt.Errorf("protocol must be tcp or udp, not %q", a.Protocol)
	case a.HTTP != nil && (a.HTTP.Method == "" || a.HTTP.Target == ""):
		return nil, errors.New("http needs a method and a target")
	case a.HTTP != nil && a.Protocol == policy.ProtocolUDP:
		return nil, errors.New("http needs protocol tcp")
	case given(a.GraphQL) && given(a.JSONRPC):
		return nil, errors.New("graphql and jsonrpc exclude each other: a request has one body")
	case a.WebSocketText != nil && a.HTTP != nil && a.HTTP.Upgrade != nil:
		return nil, errors.New("http.upgrade is for other protocols than WebSocket: leave it out where there is a websocket_text")
	case a.HTTP == nil && (a.WebSocketText != nil || given(a.GraphQL) || given(a.JSONRPC)):
		return nil, errors.New("websocket_text, graphql and jsonrpc need http: the request they belong to")
	}
	var addrs []netip.Addr
	for _, s := range a.ResolvedIPs {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("resolved_ips: %q is not an address", s)
		}
		addrs = append(addrs, addr)
	}
	if addr, literal := wildcard.HostAddr(wildcard.CanonicalHost(a.Host)); literal {
		addrs = append(addrs, addr)
	}
	return addrs, nil
}
