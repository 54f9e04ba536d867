// SPDX-License-Identifier: Apache-2.0

// Package ipaddr says where IP addresses lead: which are never to be dialled, and
// which are public. It knows the IANA special-purpose address registries (iana.csv,
// from which special.go is generated) and the ways to write an IPv4 address as an
// IPv6 one. It owns no policy: what may be opened is for others to say.
//
// A translator (NAT64) with a prefix of the network's own cannot be told from any
// other public prefix.
package ipaddr

import (
	"bytes"
	"net/netip"
	"slices"
)

//go:generate go run generate.go

// special is an entry of a registry.
type special struct {
	prefix netip.Prefix
	global bool // globally reachable
}

// forbidden is a range that reaches the host itself, its link, or nobody in
// particular.
type forbidden struct {
	prefix netip.Prefix
	what   string
}

var never4 = []forbidden{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"}, // RFC 5771
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
}

var never6 = []forbidden{
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"}, // RFC 4291 section 2.7
}

func neverOf(a netip.Addr) []forbidden {
	if a.Is4() {
		return never4
	}
	return never6
}

// metadata are cloud metadata services outside the link-local ranges: AWS over
// IPv6 and Alibaba Cloud.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("100.100.100.200"),
}

// unicast is the part of IPv6 from which global unicast addresses are given out
// (RFC 3513, IANA's IPv6 address space registry).
var unicast = netip.MustParsePrefix("2000::/3")

// ours are not public either. The registry calls the anycast addresses of NATs, relays
// and registrars global (PCP, TURN, SRP), but the nearest one is this network's own.
// Multicast has a registry to itself.
var ours = []netip.Prefix{
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("2001:1::/32"),
}

// The prefixes behind which an IPv6 address holds an IPv4 one.
var (
	translators = []netip.Prefix{ // that end in it
		netip.MustParsePrefix("::/96"),           // IPv4-compatible, RFC 4291 section 2.5.5.1
		netip.MustParsePrefix("::ffff:0:0:0/96"), // IPv4-translated, RFC 2765 and 7915
		netip.MustParsePrefix("64:ff9b::/96"),    // NAT64, RFC 6052
	}
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380
)

// Plain strips what does not change where an address leads: the IPv4-mapped form
// and the zone. The other functions take plain addresses.
func Plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Never returns what makes an address one that is never to be dialled, or "".
func Never(a netip.Addr) string {
	never := neverOf(a)
	for i := range never {
		if never[i].prefix.Contains(a) {
			return never[i].what
		}
	}
	if slices.Contains(metadata, a) {
		return "cloud metadata"
	}
	if a.Is4() {
		return ""
	}
	if v4, ok := translated(a); ok {
		return Never(v4)
	}
	var room [5]netip.Addr
	for _, v4 := range hidden(a, room[:0]) {
		// The other ranges are too wide: what is not an address at all may look like one of them.
		if what := Never(v4); what == "loopback" || what == "link-local" || what == "cloud metadata" {
			return what
		}
	}
	return ""
}

// Public reports whether an address is reachable from everywhere, and an IPv4
// address in it too.
func Public(a netip.Addr) bool {
	for i := range ours {
		if ours[i].Contains(a) {
			return false
		}
	}
	if a.Is4() {
		return global(special4, a, true)
	}
	if v4, ok := translated(a); ok {
		return Public(v4)
	}
	var room [5]netip.Addr
	for _, v4 := range hidden(a, room[:0]) {
		if !Public(v4) {
			return false
		}
	}
	return global(special6, a, unicast.Contains(a))
}

// PublicPrefix reports whether all addresses of a prefix are certainly public.
func PublicPrefix(p netip.Prefix) bool {
	if p.IsSingleIP() {
		return Public(p.Addr())
	}
	overlaps := func(other netip.Prefix) bool { return other.Overlaps(p) }
	if p.Addr().Is6() {
		return p.Bits() >= unicast.Bits() && unicast.Overlaps(p) &&
			!slices.ContainsFunc(special6, func(s special) bool { return overlaps(s.prefix) })
	}
	return !slices.ContainsFunc(special4, func(s special) bool { return overlaps(s.prefix) }) && !NeverIn(p)
}

// NeverIn reports whether some address of a prefix is in a range that is never to
// be dialled.
func NeverIn(p netip.Prefix) bool {
	for _, never := range neverOf(p.Addr()) {
		if never.prefix.Overlaps(p) {
			return true
		}
	}
	return p.IsSingleIP() && Never(p.Addr()) != ""
}

// global looks an address up in a registry, longest prefix first.
func global(registry []special, a netip.Addr, otherwise bool) bool {
	for i := range registry {
		if registry[i].prefix.Contains(a) {
			return registry[i].global
		}
	}
	return otherwise
}

// translated returns the IPv4 address that an IPv6 one stands for, and for nothing
// else.
func translated(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	for i := range translators {
		if translators[i].Contains(a) {
			return netip.AddrFrom4([4]byte(b[12:])), true
		}
	}
	if sixToFour.Contains(a) {
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// isatap begins the interface identifiers of ISATAP (RFC 5214 section 6.1), with or
// without the bit that says that the IPv4 address behind it is unique.
var isatap = []byte{0x00, 0x00, 0x5e, 0xfe}

// hidden appends the IPv4 addresses that an IPv6 one may also lead to.
func hidden(a netip.Addr, to []netip.Addr) []netip.Addr {
	b := a.As16()
	switch {
	case teredo.Contains(a): // its server, and its client, obfuscated
		to = append(to, netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	case localNAT64.Contains(a): // by the prefix's length: 48, 56, 64 and 96 (RFC 6052 section 2.2)
		to = append(to, netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]}), netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]}),
			netip.AddrFrom4([4]byte(b[9:13])), netip.AddrFrom4([4]byte(b[12:])))
	}
	if b[8]&^0x02 == isatap[0] && bytes.Equal(b[9:12], isatap[1:]) {
		to = append(to, netip.AddrFrom4([4]byte(b[12:])))
	}
	return to
}
