// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
)

// ParsePrefix reads an entry of allowed_ips: a CIDR prefix or an address.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("invalid address or CIDR prefix %s", printable.Text(s))
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("allowed_ips entry %s: write IPv4 prefixes in their own form", s)
	}
	return prefix.Masked(), nil
}

// checkAllowedIP validates an entry of allowed_ips.
func checkAllowedIP(s string) (netip.Prefix, error) {
	prefix, err := ParsePrefix(s)
	if err != nil {
		return prefix, err
	}
	if ipaddr.NeverIn(prefix) {
		return prefix, fmt.Errorf("allowed_ips entry %s falls within always-blocked range (loopback/link-local/unspecified); remove it or narrow it", s)
	}
	return prefix, nil
}
