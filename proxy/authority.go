// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strconv"
	"strings"
)

// splitAuthority splits a request's authority into host and port, which is 0 where
// there is none. It takes no other form than a name or an address, of IPv6 in
// brackets, and decimal digits (RFC 3986 section 3.2): no user, no escapes, no zone,
// and no number that some would take for an address. A name loses the dot at its
// end and is in lower case, an address in its usual form.
func splitAuthority(authority string) (host string, port uint16, ok bool) {
	host = authority
	bracket := strings.LastIndexByte(authority, ']')
	if colon := strings.LastIndexByte(authority, ':'); colon > bracket {
		if port, ok = parsePort(authority[colon+1:]); !ok {
			return "", 0, false
		}
		host = authority[:colon]
	}
	if bracket >= 0 {
		if len(host) < 2 || host[0] != '[' || bracket != len(host)-1 {
			return "", 0, false
		}
		a, err := netip.ParseAddr(host[1:bracket])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", 0, false
		}
		return a.Unmap().String(), port, true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host, port, isHost(host)
}

// parsePort reads a port's digits, of which there may be zeros in front.
func parsePort(text string) (port uint16, ok bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0
}

// isHost reports whether a text is a host name without a dot at its end, or an IPv4
// address.
func isHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0 // where the last one begins
	for i := range len(s) {
		switch b := s[i]; {
		case b == '.':
			if i == label || i == len(s)-1 {
				return false
			}
			label = i + 1
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_':
			if i-label >= 63 {
				return false
			}
		default:
			return false
		}
	}
	if s == "" {
		return false
	}
	if isNumber(s[label:]) {
		_, err := netip.ParseAddr(s)
		return err == nil
	}
	return true
}

// isNumber reports whether a last label is one that makes a host an IPv4 address to
// some (WHATWG URL section 3.5).
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// hostHeader returns the form in which a request's authority is sent on: the
// connection's own. ok is false where it is not the connection's.
func (f *tcpFlow) hostHeader(authority string) (sent string, ok bool) {
	to := f.endpoint()
	if authority == "" || authority == to.host {
		return authority, true
	}
	host, port, ok := splitAuthority(authority)
	if !ok || port != 0 && port != to.port || !f.namesHost(host) {
		return "", false
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != 0 {
		host += ":" + strconv.Itoa(int(port))
	}
	return host, true
}
