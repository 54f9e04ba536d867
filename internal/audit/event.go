// SPDX-License-Identifier: Apache-2.0

// Package audit records what happened in a sandbox: as OCSF events, one JSON object
// a line, for machines, and as shorthand lines for people. It owns the two formats and the
// bounded files they go to. It does not own any decision: callers say what was
// allowed, denied or merely logged, and why.
package audit

import (
	"net/netip"
	"time"
)

// Class is an OCSF event class; the value is its class_uid (OCSF 1.8).
type Class uint32

// The event classes in use.
const (
	ClassFinding   Class = 2004 // Detection Finding, FINDING
	ClassNetwork   Class = 4001 // Network Activity, NET
	ClassHTTP      Class = 4002 // HTTP Activity, HTTP
	ClassDNS       Class = 4003 // DNS Activity, DNS
	ClassConfig    Class = 5019 // Device Config State Change, CONFIG
	ClassLifecycle Class = 6002 // Application Lifecycle, LIFECYCLE
)

// Action is OCSF's action_id: what became of the activity.
type Action uint8

// The actions in use; the zero value is unknown.
const (
	ActionAllowed  Action = 1
	ActionDenied   Action = 2
	ActionObserved Action = 3
)

// Disposition is OCSF's disposition_id: how the action came about. A permissive
// allowance is ActionAllowed with DispositionLogged.
type Disposition uint8

// The dispositions in use; the zero value is unknown.
const (
	DispositionAllowed Disposition = 1
	DispositionBlocked Disposition = 2
	DispositionLogged  Disposition = 17
)

// Severity is OCSF's severity_id. The zero value lets Record choose: medium for
// what was denied or logged, informational for the rest.
type Severity uint8

// The severities in use.
const (
	SeverityInformational Severity = 1
	SeverityLow           Severity = 2
	SeverityMedium        Severity = 3
	SeverityHigh          Severity = 4
)

// Event is one thing that happened. Names, type and category follow from the class.
// What its pointers and slices refer to must not change after it was recorded.
type Event struct {
	Time time.Time // zero: when it is recorded

	Sandbox   string // the sandbox's id
	Container string // the container's id
	Mode      string // "permissive" or "enforcing"

	Class       Class
	Activity    string // upper case: "OPEN", "REFUSE", "GET", "QUERY", "PROPOSED", …
	Action      Action
	Disposition Disposition
	Severity    Severity

	Process *Process // who did it, where that is known

	Host string     // the destination's name, without a port
	IP   netip.Addr // the destination's address
	Port uint16
	// Protocol is the transport protocol, "tcp" or "udp"; empty where it is not known.
	Protocol string

	HTTP *HTTP // for ClassHTTP

	Policy  string // the rule that decided, empty: none
	Engine  string // what decided: l4, l7, ssrf, tls, dns, identity, …
	Reason  string // why it was, or would have been, denied
	Message string // one line for people
}

// Process is the workload's process an event is about.
type Process struct {
	PID       int
	Path      string   // the executable, as seen in the container
	SHA256    string   // of the executable, lower-case hex
	Ancestors []string // executables of the parents, nearest first
}

// HTTP is a request without anything that may hold a secret: no query string, no
// headers, no body.
type HTTP struct {
	Method string
	Scheme string // http or https
	Path   string // canonical; whatever follows a '?' is not recorded
	Status int    // the answer's, 0 where there was none
}
