// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"slices"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/policy"
)

// AddressError says why a resolved address must not be dialled.
type AddressError struct {
	Addr   netip.Addr
	Reason string
}

func (e *AddressError) Error() string { return e.Reason }

// CheckAddress is the guard against server-side request forgery, for one
// address that the host resolved to and the port to be dialled. Every resolved
// address has to pass it. It returns nil or an *AddressError.
//
// Addresses that are always blocked stay so whatever the policy says, and a
// connection no rule allows (permissive mode) reaches public addresses only, the site's
// own (Options.Trusted) among them, but for control-plane ports.
// One exception is the container's host: where an operator's endpoint names it by
// an engine's alias, it may be at the link-local address that the hosts file
// had for the alias.
// Otherwise the endpoints decide, by how they name the host; an address passes
// if the exact names, the wildcards or the hostless endpoints admit it. Among
// the endpoints of one of these kinds, allowed_ips takes precedence; without
// it, the operator's own exact hosts may be private.
func (m Match) CheckAddress(addr netip.Addr, port uint16) error {
	a := ipaddr.Plain(addr)
	refuse := func(format string, args ...any) error {
		return &AddressError{addr, fmt.Sprintf(format, args...)}
	}
	switch what := ipaddr.Never(a); {
	case m.metadata:
		return refuse("internal address: the host is a cloud metadata service, which is always blocked")
	case !a.IsValid():
		return refuse("internal address: not an address")
	case m.isGateway(a):
		if policy.IsControlPlanePort(port) {
			return refuse("port %d is a blocked control-plane port, connection rejected", port)
		}
		return nil
	case what != "" && m.namesGateway():
		return refuse("trusted-gateway check failed: %s is not the address that the container's hosts file has for the host (%s)", addr, what)
	case what != "":
		return refuse("internal address: %s is always blocked (%s)", addr, what)
	}
	own := m.isTrusted(a) && !ipaddr.Public(a)
	unlisted, closedPort := false, own && policy.IsControlPlanePort(port)
	public := ipaddr.Public(a) || own && !closedPort
	for kind := policy.ExactHost; kind <= policy.Hostless; kind++ {
		trust, found := m.trust(kind, a)
		switch {
		case !found:
		case trust == trustPublic && public:
			return nil
		case trust == trustPublic:
		case trust == trustNone:
			unlisted = true
		case policy.IsControlPlanePort(port):
			closedPort = true
		default:
			return nil
		}
	}
	switch {
	case !m.Allowed && public:
		return nil
	case closedPort:
		return refuse("port %d is a blocked control-plane port, connection rejected", port)
	case unlisted:
		return refuse("allowed_ips check failed: %s is not within the endpoint's allowed_ips", addr)
	default:
		return refuse("internal address: %s is not public; allow it with allowed_ips", addr)
	}
}

// CheckUnresolved is CheckAddress for a name whose addresses are not known, since the site's proxy looks it up. What
// can be judged by nothing but the address is refused; that the others lead nowhere inside is the proxy's to see to.
func (m Match) CheckUnresolved() error {
	switch {
	case m.metadata:
		return m.CheckAddress(netip.Addr{}, 0)
	case m.namesGateway():
		return &AddressError{Reason: "trusted-gateway check failed: the host is not resolved on this node"}
	}
	unlisted := false
	for kind := policy.ExactHost; kind <= policy.Hostless; kind++ {
		trust, found := m.trust(kind, netip.Addr{})
		if found && trust != trustNone {
			return nil
		}
		unlisted = unlisted || found
	}
	if unlisted {
		return &AddressError{Reason: "allowed_ips check failed: the host is not resolved on this node, so that its addresses are not known"}
	}
	return nil
}

func (m *Match) isTrusted(a netip.Addr) bool {
	return slices.ContainsFunc(m.trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// trust is what an endpoint, or several of one kind, makes of an address.
type trust int

const (
	trustNone   trust = iota // outside allowed_ips
	trustPublic              // if it is public
	trustFull                // also if it is private
)

// trust returns the trust of the matched endpoints that name the host in one
// way, and whether there are any.
func (m *Match) trust(kind policy.HostKind, a netip.Addr) (trust, bool) {
	found, listed, private := false, false, false
	for i := range m.count {
		ep := m.at(i)
		if ep.kind != kind {
			continue
		}
		found = true
		for _, prefix := range ep.allowedIPs {
			if prefix.Contains(a) {
				return trustFull, true
			}
		}
		listed = listed || len(ep.allowedIPs) > 0
		private = private || kind == policy.ExactHost && !ep.rule.learned
	}
	switch {
	case listed:
		return trustNone, found
	case private:
		return trustFull, found
	default:
		return trustPublic, found
	}
}
