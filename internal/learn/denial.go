// SPDX-License-Identifier: Apache-2.0

// Package learn turns denials into proposals, and approved proposals into rules: it is
// audit2allow for a sandbox. It owns what is evidence and how it adds up, how a rule
// is built from it, and the review of proposals. It does not decide what is a denial
// (package policy does), nor where its files are and how they are written (package state).
package learn

import (
	"net/netip"
	"time"

	"openshell.ai/openshell/policy"
)

// Kind says how much of a connection was seen.
type Kind uint8

// The kinds of denial.
const (
	KindConnect Kind = iota // a connection, not one byte of its content
	KindRaw                 // content that is not HTTP, or could not be looked into
	KindHTTP                // one HTTP request
	KindMessage             // one message on a WebSocket
)

// Denial is one action that the effective policy does not allow.
type Denial struct {
	Time       time.Time
	Permissive bool   // it succeeded nevertheless
	Layer      string // what denied it: l4 or l7
	Host       string // the name the connection was opened for, or an IP address
	Port       uint16
	Protocol   string // tcp (also when empty) or udp

	Binary    string // the executable's path, as seen in the container
	SHA256    string
	Ancestors []string // executables of the parents, nearest first
	Reason    string

	Kind   Kind
	Method string // of a request
	Path   string // of a request, or the one that opened the WebSocket: as rules spell it, without the query string
	Status int    // of the answer to a request, 0 where there was none

	// Of an endpoint that declares a protocol: its protocol, its path, and what its rules
	// lack: nothing where no rule helps. L7 is empty where no endpoint is declared; Missing then
	// has a request's path in each of the ways in which servers read it, where there are more.
	L7           string
	EndpointPath string
	Missing      []policy.L7Match

	TLS     string // terminated, spliced or none; unused for KindConnect
	TLSSkip bool   // it was passed on: the client rejected the sandbox's CA, or see TLSFault
	// TLSFault is why the origin's TLS could not be ended by the proxy.
	TLSFault string
	IPs      []netip.Addr
}

// Run is one run of a sandbox, where denials come from.
type Run struct {
	ID        string
	Sandbox   string
	Container string
	Image     string
	Policy    string // the policy's name
	Mode      string // ModePermissive or ModeEnforcing

	BasePolicySHA256 string
	TTL              string // how long the run may be permissive, a Go duration
	Started          time.Time
}

// The modes of a run.
const (
	ModePermissive = "permissive"
	ModeEnforcing  = "enforcing"
)
