// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/identity"
)

// endpoint is who wants to reach what. It is immutable: where more becomes known, a new one takes its place.
type endpoint struct {
	process    identity.Process
	processErr error  // why the process is not known
	host       string // a name in lower case, or an IP address
	port       uint16
	udp        bool         // or else TCP
	addrs      []netip.Addr // resolved, guarded: the only ones to dial
}

// resolved is the endpoint with the addresses that the guard let pass.
func (e *endpoint) resolved(addrs []netip.Addr) *endpoint {
	next := *e
	next.addrs = addrs
	return &next
}

// decideAddresses decides what the endpoint was resolved to.
func (e *endpoint) decideAddresses(c *decision.Connection) decision.Decision {
	if len(e.addrs) == 0 {
		return c.Unresolved()
	}
	return c.Addresses(e.addrs...)
}

func (e *endpoint) connection() engine.Connection {
	c := engine.Connection{Binary: e.process.Path, Ancestors: e.process.Ancestors, Aliases: e.process.Aliases,
		Host: e.host, Port: e.port}
	if e.udp {
		c.Protocol = policy.ProtocolUDP
	}
	return c
}

func (e *endpoint) hostPort() string { return net.JoinHostPort(e.host, strconv.Itoa(int(e.port))) }

// isAddress reports whether the connection was opened for an address, not for a name.
func (e *endpoint) isAddress() bool {
	_, err := netip.ParseAddr(e.host)
	return err == nil
}

// complete fills in what every record says of the endpoint.
func (e *endpoint) complete(r Record) Record {
	r.Time = time.Now()
	r.Process, r.Host, r.Port, r.UDP, r.Addrs = e.process, e.host, e.port, e.udp, e.addrs
	return r
}

// recordOf is the record that tells a decision.
func recordOf(kind Kind, d decision.Decision) Record {
	return Record{
		Kind: kind, Outcome: d.Outcome, Evidence: d.Learnable, Layer: d.Layer, Policy: d.Policy, Reason: d.Reason,
		Protocol: d.Protocol, EndpointPath: d.EndpointPath, Missing: d.Missing,
	}
}

// recordOfConnection is recordOf for a connection that is admitted or refused. One that permissive mode lets
// through is no evidence yet: what it carries is.
func recordOfConnection(d decision.Decision) Record {
	r := recordOf(Connect, d)
	r.Evidence = r.Evidence && d.Outcome == decision.Denied
	return r
}
