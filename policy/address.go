package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// blockedRange is a range that nothing in a policy can open.
type blockedRange struct {
	prefix netip.Prefix
	what   string
}

// alwaysBlocked are loopback, link-local and the other ranges that reach the
// host itself or nobody (RFC 6890, RFC 5771, RFC 1112 section 4, RFC 4291).
var alwaysBlocked = []blockedRange{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// metadataAddrs are cloud metadata services outside the link-local ranges:
// AWS over IPv6 and Alibaba Cloud.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("100.100.100.200"),
}

// internal are the ranges that are not public (the IANA special-purpose
// address registries) but may be opened by a policy.
var internal = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fec0::/10"),      // site-local, deprecated by RFC 3879
	netip.MustParsePrefix("64:ff9b:1::/48"), // local-use NAT64, RFC 8215
	netip.MustParsePrefix("100::/64"),       // discard-only, RFC 6666
	netip.MustParsePrefix("2001::/32"),      // Teredo: reaches an address it hides
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"),
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour  = netip.MustParsePrefix("2002::/16")    // RFC 3056
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291 section 2.5.5.1
)

// controlPlanePorts (etcd, Docker, Kubernetes) are closed wherever a policy
// opens more than public addresses, so that trust in a network is not trust in
// whoever runs it.
var controlPlanePorts = []uint16{2379, 2380, 6443, 10250, 10255}

// AddressError says why a resolved address must not be dialled.
type AddressError struct {
	Addr   netip.Addr
	Reason string
}

func (e *AddressError) Error() string { return e.Reason }

// plain strips what does not change where an address leads: the IPv4-mapped
// form and the zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// embedded returns the IPv4 address that an IPv6 one is translated to.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if a.Is4() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), compatible.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// blocked returns what makes an address one that is never dialled, or "".
func blocked(a netip.Addr) string {
	for _, r := range alwaysBlocked {
		if r.prefix.Contains(a) {
			return r.what
		}
	}
	if slices.Contains(metadataAddrs, a) {
		return "cloud metadata"
	}
	if v4, ok := embedded(a); ok {
		return blocked(v4)
	}
	return ""
}

// isInternal reports whether an address that is not blocked is not public.
func isInternal(a netip.Addr) bool {
	for _, prefix := range internal {
		if prefix.Contains(a) {
			return true
		}
	}
	v4, ok := embedded(a)
	return ok && isInternal(v4)
}

// CheckAddress is the guard against server-side request forgery, for one
// address that the host resolved to and the port to be dialled. Every resolved
// address has to pass it. It returns nil or an *AddressError.
//
// Addresses that are always blocked stay so whatever the policy says, and a
// connection no rule allows (permissive mode) reaches public addresses only.
// One exception is the container's host: where an operator's endpoint names it by
// an engine's alias, it may be at the link-local address that the hosts file
// had for the alias.
// Otherwise the endpoints decide, by how they name the host; an address passes
// if the exact names, the wildcards or the hostless endpoints admit it. Among
// the endpoints of one of these kinds, allowed_ips takes precedence; without
// it, the operator's own exact hosts may be private.
func (m Match) CheckAddress(addr netip.Addr, port uint16) error {
	a := plain(addr)
	refuse := func(format string, args ...any) error {
		return &AddressError{addr, fmt.Sprintf(format, args...)}
	}
	switch what := blocked(a); {
	case m.metadata:
		return refuse("internal address: the host is a cloud metadata service, which is always blocked")
	case !a.IsValid():
		return refuse("internal address: not an address")
	case m.isGateway(a):
		if slices.Contains(controlPlanePorts, port) {
			return refuse("port %d is a blocked control-plane port, connection rejected", port)
		}
		return nil
	case what != "" && m.namesGateway():
		return refuse("trusted-gateway check failed: %s is not the address that the container's hosts file has for the host (%s)", addr, what)
	case what != "":
		return refuse("internal address: %s is always blocked (%s)", addr, what)
	}
	public := !isInternal(a)
	unlisted, closedPort := false, false
	for kind := exactHost; kind <= hostless; kind++ {
		trust, found := m.trust(kind, a)
		switch {
		case !found:
		case trust == trustPublic && public:
			return nil
		case trust == trustPublic:
		case trust == trustNone:
			unlisted = true
		case slices.Contains(controlPlanePorts, port):
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

// trust is what an endpoint, or several of one kind, makes of an address.
type trust int

const (
	trustNone   trust = iota // outside allowed_ips
	trustPublic              // if it is public
	trustFull                // also if it is private
)

// trust returns the trust of the matched endpoints that name the host in one
// way, and whether there are any.
func (m *Match) trust(kind hostKind, a netip.Addr) (trust, bool) {
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
		private = private || kind == exactHost && !ep.rule.learned
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

// parsePrefix reads an entry of allowed_ips: a CIDR prefix or an address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("invalid address or CIDR prefix %s", printable(s))
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("allowed_ips entry %s: write IPv4 prefixes in their own form", s)
	}
	return prefix.Masked(), nil
}

// checkAllowedIP validates an entry of allowed_ips.
func checkAllowedIP(s string) (netip.Prefix, error) {
	prefix, err := parsePrefix(s)
	if err != nil {
		return prefix, err
	}
	never := prefix.IsSingleIP() && blocked(prefix.Addr()) != ""
	for _, r := range alwaysBlocked {
		never = never || r.prefix.Overlaps(prefix)
	}
	if never {
		return prefix, fmt.Errorf("allowed_ips entry %s falls within always-blocked range (loopback/link-local/unspecified); remove it or narrow it", s)
	}
	return prefix, nil
}
