// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/identity"
)

// Kind says how much was seen of an action.
type Kind int

const (
	Connect Kind = iota // a connection, nothing of what it carries
	Raw                 // a connection that carries something other than HTTP
	Request             // an HTTP request
	Message             // a message on a WebSocket
)

// Layers name who took a decision.
const (
	LayerIdentity   = "identity" // process identity
	LayerL4         = decision.LayerL4
	LayerL7         = decision.LayerL7
	LayerSSRF       = decision.LayerSSRF
	LayerTLS        = "tls"         // certificates and server names
	LayerHTTP       = "http-parser" // malformed requests
	LayerAuthority  = "request-authority"
	LayerUpstream   = "upstream" // names and connections that failed
	LayerLimit      = "limit"
	LayerConnection = "connection"
)

// TLS handling of a connection.
const (
	TLSNone       = "none"
	TLSTerminated = "terminated"
	TLSSpliced    = "spliced"
)

// Record is one thing the proxy decided or saw.
type Record struct {
	Time    time.Time
	Kind    Kind
	Outcome decision.Outcome
	// Evidence marks what a policy may be learned from. Each action is
	// evidence once, however many records speak of it.
	Evidence bool

	Process identity.Process
	Host    string
	Port    uint16
	UDP     bool         // or else TCP
	Addrs   []netip.Addr // that Host resolved to and the guard let pass

	Method, Scheme, Path string // Path is as rules spell it, without the query
	Status               int    // of the response; 0 for none

	Layer, Policy, Reason string
	TLS                   string
	TLSSkip               bool   // TLS is passed on: the client does not trust the sandbox's CA, or see TLSFault
	TLSFault              string // why the origin's TLS cannot be ended here

	// Protocol and EndpointPath are the deciding endpoint's (engine.Verdict), and
	// Missing what its rules lack.
	Protocol, EndpointPath string
	Missing                []policy.L7Match
}
