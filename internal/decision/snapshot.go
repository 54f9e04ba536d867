// SPDX-License-Identifier: Apache-2.0

package decision

import "openshell.ai/openshell/policy/engine"

// Snapshot is everything that rules a sandbox's network at one moment. It is immutable, and two of them are
// equal (==) where they decide alike because nothing was replaced.
type Snapshot struct {
	Effective *engine.Engine
	// Maximum is what not even permissive mode exceeds; nil: there is no maximum.
	Maximum *engine.Engine
	// Permissive: what the effective policy denies is let through, and logged.
	Permissive bool
	// Never are the endpoints for which Permissive does not hold.
	Never *engine.Endpoints
}

// exceedsMaximum begins the reason of what only the maximum policy denies.
const exceedsMaximum = "exceeds the node's maximum policy: "

// neverPermissive begins the reason of what permissive mode would let through elsewhere.
const neverPermissive = "permissive mode never holds for this endpoint (permissive.never): "

// Connect decides a connection. What it returns decides what is said over it.
func (s Snapshot) Connect(c engine.Connection) *Connection {
	conn := &Connection{snapshot: s, port: c.Port, effective: s.Effective.Connect(c)}
	if s.Maximum != nil {
		conn.maximum = s.Maximum.Connect(c)
	}
	conn.never = s.Permissive && s.Never.Contain(c.Host, c.Port)
	conn.permissive = s.Permissive && !conn.never
	return conn
}

// MayResolve reports whether a name may be sent to a DNS server. Names carry data, so that one that no rule
// knows leaves in permissive mode only. host is the name that connections would be opened for, which differs
// where name is a service's (RFC 2782).
func (s Snapshot) MayResolve(name, host string) bool {
	return s.Effective.NameKnown(name) || s.Effective.NameKnown(host) || s.Permissive && !s.Never.ContainHost(host)
}
