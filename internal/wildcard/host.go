// SPDX-License-Identifier: Apache-2.0

package wildcard

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"openshell.ai/openshell/internal/printable"
)

// CanonicalHost returns a host as the index knows it: lower case, without the
// root's dot, or, for an address, in netip's form. It allocates only where
// something has to change.
func CanonicalHost(host string) string {
	host = strings.TrimSuffix(host, ".")
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") && strings.Contains(host, ":") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(host)
}

// HostAddr returns the address that a host is, if it is one.
func HostAddr(host string) (netip.Addr, bool) {
	if !strings.Contains(host, ":") && strings.Trim(host, "0123456789.") != "" {
		return netip.Addr{}, false // a name; ParseAddr would allocate its error
	}
	a, err := netip.ParseAddr(host)
	return a.Unmap(), err == nil
}

// IsMetadataHost reports whether a name is a cloud's metadata service, which is
// never reachable whatever it resolves to.
func IsMetadataHost(host string) bool {
	return host == "metadata.google.internal" || host == "metadata.goog"
}

// CheckHost validates an endpoint's host: a name, an address or a wildcard.
func CheckHost(host string) error {
	canonical := CanonicalHost(host)
	if _, ok := HostAddr(canonical); ok {
		return nil
	}
	switch {
	case strings.Contains(host, "://"):
		return fmt.Errorf("host %s must not have a scheme: give only the name", printable.Text(host))
	case strings.ContainsAny(host, "/:"):
		return fmt.Errorf("host %s must be only a name or an address: ports go in port, paths in path", printable.Text(host))
	case len(canonical) > 253:
		return fmt.Errorf("host is longer than 253 bytes")
	}
	labels := strings.Split(canonical, ".")
	for _, label := range labels {
		if err := CheckLabel(label); err != nil {
			return fmt.Errorf("host %s: %w", printable.Text(host), err)
		}
	}
	// WHATWG URL 3.5: a host whose last label is a number is an IPv4 address.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("host %s is not a valid address", printable.Text(host))
	}
	if strings.Contains(canonical, "*") {
		return checkWildcard(host, labels)
	}
	return nil
}

func CheckLabel(label string) error {
	if label == "" {
		return errors.New("empty label")
	}
	if len(label) > 63 {
		return errors.New("label longer than 63 bytes")
	}
	for _, r := range label {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '*':
		case r > 127:
			return errors.New("write international names in their xn-- form")
		default:
			return fmt.Errorf("invalid character %q", r)
		}
	}
	return nil
}

// checkWildcard applies OpenShell's rules for names with `*`.
func checkWildcard(host string, labels []string) error {
	invalid := func(why string) error {
		return fmt.Errorf("invalid host wildcard '%s'; %s", host, why)
	}
	last := len(labels) - 1
	if last == 0 {
		return invalid("use a subdomain wildcard like '*.example.com'")
	}
	if strings.Contains(labels[last], "*") {
		return invalid("the last label must not have a wildcard")
	}
	if last == 1 {
		return fmt.Errorf("TLD wildcard '%s' is not allowed; use subdomain wildcards like '*.example.com' instead", host)
	}
	for i, label := range labels {
		switch {
		case strings.Contains(label, "**") && (i > 0 || label != "**"):
			return invalid("'**' must be the whole first label")
		case i > 0 && label != "*" && strings.Contains(label, "*"):
			return invalid("'*' must be a whole label except in the first one")
		}
	}
	return nil
}

// HostPattern is a wildcard name, by its labels: in it `*` stays within one label
// and a first label `**` stands for one or more.
type HostPattern struct {
	labels []string
	many   bool // the first label is `**`; it is not in labels
}

func ParseHostPattern(host string) HostPattern {
	labels := strings.Split(host, ".")
	if labels[0] == "**" {
		return HostPattern{labels[1:], true}
	}
	return HostPattern{labels, false}
}

// matchLabel matches s against a pattern in which `*` is any text. Names have
// short labels, so that going back to the last `*` is cheap.
func matchLabel(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
