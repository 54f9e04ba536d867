// SPDX-License-Identifier: Apache-2.0

// Package decision answers what may be done over the network. A Snapshot is everything that rules it at one
// moment; the proxy, the name server and the commands that explain a policy all ask it and nothing else, so
// that they cannot differ. It knows nothing of connections, of logs, or of how a policy is learned from them.
package decision

import "openshell.ai/openshell/policy"

// Outcome is what becomes of an action.
type Outcome int

const (
	Denied  Outcome = iota
	Allowed         // the policy allows it
	Audited         // the policy's rules deny it, but its endpoint only audits
	Logged          // the policy denies it; permissive mode lets it through
)

// String returns "deny", "allow" or "audit", as openshell policy eval writes them.
func (o Outcome) String() string {
	switch o {
	case Allowed:
		return "allow"
	case Audited, Logged:
		return "audit"
	default:
		return "deny"
	}
}

// Layers name what decides.
const (
	LayerL4   = "l4"   // host, port and program
	LayerSSRF = "ssrf" // the guard on resolved addresses
	LayerL7   = "l7"   // requests and messages
)

// Decision is what becomes of an action, and why.
type Decision struct {
	Outcome Outcome
	Layer   string // what decided it
	Policy  string // the key of the rule that decides; "" where there is none
	Reason  string // why it is not simply allowed

	// Learnable: the policy lacks a rule that would allow it, and nobody has said that it is to stay denied.
	Learnable bool
	// Malformed: it cannot be read as what its endpoint's protocol says, so that no mode lets it through.
	Malformed bool

	// Protocol and EndpointPath are those of the endpoint that decides a request or a message, and Missing is
	// what its rules lack (see engine.Verdict).
	Protocol, EndpointPath string
	Missing                []policy.L7Match
}
