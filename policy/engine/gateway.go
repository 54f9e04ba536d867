// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"slices"

	"openshell.ai/openshell/internal/ipaddr"
)

// hostAliases are the names by which engines tell a container where its host is.
var hostAliases = []string{"host.docker.internal", "host.containers.internal", "host.openshell.internal"}

// HostAliases returns the names that engines give a container's host.
func HostAliases() []string { return slices.Clone(hostAliases) }

// metadataRanges are the link-local ranges that clouds have their services in:
// instance metadata, container credentials, name and time servers.
var metadataRanges = []netip.Prefix{
	netip.MustParsePrefix("169.254.169.0/24"),
	netip.MustParsePrefix("169.254.170.0/24"),
	netip.MustParsePrefix("fe80::a9fe:a9fe/128"), // OpenStack's
}

// gatewayAddrs returns the link-local ones of a host alias's addresses. Podman's
// pasta, for one, puts the host at 169.254.1.2. No other address needs to be
// known beforehand, and a cloud's services are never the host.
func gatewayAddrs(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		a = ipaddr.Plain(a)
		isMetadata := slices.ContainsFunc(metadataRanges, func(p netip.Prefix) bool { return p.Contains(a) })
		if a.IsLinkLocalUnicast() && !isMetadata {
			out = append(out, a)
		}
	}
	return out
}

// isGateway tells whether a matched endpoint names the host by an alias with the
// address.
func (m *Match) isGateway(a netip.Addr) bool {
	for i := range m.count {
		if slices.Contains(m.at(i).gateway, a) {
			return true
		}
	}
	return false
}

// namesGateway tells whether a matched endpoint of the operator's names a host
// alias that has link-local addresses.
func (m *Match) namesGateway() bool {
	for i := range m.count {
		if len(m.at(i).gateway) > 0 {
			return true
		}
	}
	return false
}
