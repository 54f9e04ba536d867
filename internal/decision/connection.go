// SPDX-License-Identifier: Apache-2.0

package decision

import (
	"net/netip"

	"openshell.ai/openshell/policy/engine"
)

// Connection is what a snapshot makes of a connection, and of what is said over it. It is immutable.
type Connection struct {
	snapshot  Snapshot
	port      uint16
	effective engine.Match
	maximum   engine.Match // without meaning where the snapshot has no maximum
	// permissive is the snapshot's mode, except where that never holds.
	permissive, never bool
}

// Under reports whether it was decided by this snapshot.
func (c *Connection) Under(s Snapshot) bool { return c.snapshot == s }

// Permissive reports whether what the effective policy denies here is let through.
func (c *Connection) Permissive() bool { return c.permissive }

// Ruled reports whether a rule of the effective policy allows the connection.
func (c *Connection) Ruled() bool { return c.effective.Allowed }

// UnruledReason is why no rule of the effective policy allows the connection, or "".
func (c *Connection) UnruledReason() string { return c.effective.Reason }

// Policy is the key of the rule that allows the connection, or "".
func (c *Connection) Policy() string { return c.effective.Policy }

func (c *Connection) capped() bool { return c.snapshot.Maximum != nil }

// Decision decides the connection itself.
func (c *Connection) Decision() Decision {
	d := Decision{Layer: LayerL4, Reason: c.effective.Reason}
	switch {
	case c.capped() && !c.maximum.Allowed:
		d.Reason = exceedsMaximum + c.maximum.Reason
	case c.effective.Allowed:
		d.Outcome, d.Policy = Allowed, c.effective.Policy
	default:
		c.denied(&d)
	}
	return d
}

// denied completes the decision on what the effective policy denies.
func (c *Connection) denied(d *Decision) {
	switch {
	case c.permissive:
		d.Outcome, d.Learnable = Logged, true
	case c.never:
		d.Reason, d.Missing = neverPermissive+d.Reason, nil
	default:
		d.Learnable = true
	}
}

// Addresses decides what the connection's host resolved to: one bad address spoils them all, so that a name
// cannot be made to lead inside on the second try.
func (c *Connection) Addresses(addrs ...netip.Addr) Decision {
	if len(addrs) == 0 && c.effective.NamesMetadata() {
		addrs = []netip.Addr{{}} // refused by its name, whatever it resolves to
	}
	for _, a := range addrs {
		if reason := c.address(a); reason != "" {
			return Decision{Layer: LayerSSRF, Policy: c.effective.Policy, Reason: reason}
		}
	}
	return Decision{Outcome: Allowed, Layer: LayerSSRF, Policy: c.effective.Policy}
}

// Unresolved is Addresses for a name that only the site's proxy can resolve, so that no address is judged here.
func (c *Connection) Unresolved() Decision {
	d := Decision{Layer: LayerSSRF, Policy: c.effective.Policy}
	err, prefix := c.effective.CheckUnresolved(), ""
	if err == nil && c.capped() {
		err, prefix = c.maximum.CheckUnresolved(), exceedsMaximum
	}
	s := &c.snapshot
	switch {
	case err != nil:
		d.Reason = prefix + err.Error()
	case !c.effective.Allowed && s.Permissive && s.Never.HasAddresses(c.port):
		d.Reason = neverPermissive + "the name is not resolved on this node, and permissive.never has addresses that it may lead to"
	default:
		d.Outcome = Allowed
	}
	return d
}

// address returns why an address must not be dialled, or "".
func (c *Connection) address(a netip.Addr) string {
	if err := c.effective.CheckAddress(a, c.port); err != nil {
		return err.Error()
	}
	if c.capped() {
		if err := c.maximum.CheckAddress(a, c.port); err != nil {
			return exceedsMaximum + err.Error()
		}
	}
	// Another name for an address does not open it.
	s := &c.snapshot
	if !c.effective.Allowed && s.Permissive && s.Never != nil && s.Never.Contain(a.String(), c.port) {
		return neverPermissive + c.effective.Reason
	}
	return ""
}

// OpensName reports whether a connection to an address may be for a server of that name. Whoever is at an
// address that a rule allows may go by any name; permissive mode makes an address no way around Never.
func (c *Connection) OpensName(name string) bool {
	return c.effective.Allowed || !c.snapshot.Permissive || !c.snapshot.Never.Contain(name, c.port)
}

// DecidesRequests reports whether a policy wants each HTTP request decided, so that what is not HTTP has to
// be refused.
func (c *Connection) DecidesRequests() bool {
	return c.effective.Inspect || c.capped() && c.maximum.Inspect
}

// SeesRequests reports whether HTTP is looked into, so that its requests are known one by one: to decide them,
// or to learn them.
func (c *Connection) SeesRequests() bool { return c.DecidesRequests() || !c.Ruled() }

// InspectionRequired reports whether the connection may not go on unseen. In permissive mode that is the
// maximum's to say alone.
func (c *Connection) InspectionRequired() bool {
	return c.DecidesRequests() && !c.permissive || c.capped() && c.maximum.Inspect
}

// TextInspectionRequired is InspectionRequired for the text of the WebSocket that a request opened.
func (c *Connection) TextInspectionRequired(r engine.Request) bool {
	return !c.permissive && c.effective.Inspection(r).Text || c.capped() && c.maximum.Inspection(r).Text
}

// Inspection returns how much of a request has to be seen to decide it.
func (c *Connection) Inspection(r engine.Request) engine.Inspection {
	i := c.effective.Inspection(r)
	if c.capped() {
		maximum := c.maximum.Inspection(r)
		if i.MaxBody == 0 || maximum.MaxBody > 0 && maximum.MaxBody < i.MaxBody {
			i.MaxBody = maximum.MaxBody
		}
		i.Text = i.Text || maximum.Text
	}
	return i
}

// Request decides an HTTP request.
func (c *Connection) Request(r engine.Request) Decision {
	maximum := engine.Verdict{Decision: engine.Allow}
	if c.capped() {
		maximum = c.maximum.Request(r)
	}
	d := c.combine(c.effective.Request(r), maximum)
	if len(r.Upgrades) > 0 && d.Learnable && d.Protocol == "" {
		d.Missing = r.Matches()
	}
	return d
}

// Message decides a text message on the WebSocket that a request opened.
func (c *Connection) Message(r engine.Request, text []byte) Decision {
	maximum := engine.Verdict{Decision: engine.Allow}
	if c.capped() {
		maximum = c.maximum.Text(r, text)
	}
	return c.combine(c.effective.Text(r, text), maximum)
}

// combine makes one decision of the policies' verdicts and the mode. Permissive mode lets through what the
// effective policy denies, at every layer alike, but neither what cannot be read nor what the maximum
// denies; from these two there is nothing to learn.
func (c *Connection) combine(effective, maximum engine.Verdict) Decision {
	d := Decision{Layer: LayerL7, Policy: effective.Policy, Reason: effective.Reason,
		Protocol: effective.Protocol, EndpointPath: effective.Path, Missing: effective.Missing,
		Malformed: effective.Malformed || maximum.Malformed}
	if !c.effective.Allowed {
		d.Layer = LayerL4
	}
	switch {
	case effective.Malformed:
	case maximum.Malformed:
		d.Reason, d.Protocol, d.Missing = maximum.Reason, maximum.Protocol, nil
	case maximum.Decision == engine.Deny:
		d.Reason, d.Missing = exceedsMaximum+maximum.Reason, nil
	case effective.Decision == engine.Allow:
		d.Outcome = Allowed
	case effective.Decision == engine.Audit:
		d.Outcome = Audited
	default:
		c.denied(&d)
	}
	return d
}

// notHTTP is why an endpoint that declares HTTP refuses other protocols.
const notHTTP = "the endpoint's protocol is HTTP, and this is not HTTP"

// CanPassthrough reports whether what was to be inspected may go on unseen.
func (c *Connection) CanPassthrough() bool { return c.permissive && !c.InspectionRequired() }

// Opaque decides on a connection that turns out to carry something other than HTTP.
func (c *Connection) Opaque() Decision {
	d := Decision{Outcome: Logged, Layer: LayerL7, Policy: c.effective.Policy, Reason: notHTTP}
	switch {
	case !c.DecidesRequests():
		return c.Decision()
	case c.effective.Inspect && !c.permissive:
		d.Outcome = Denied
	case c.InspectionRequired():
		d.Outcome, d.Reason = Denied, exceedsMaximum+d.Reason
	}
	return d
}
