// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// maxNotes bounds what is said about one rule; the rule itself is shown whole.
const maxNotes = 32

// ruleNotes are what a reviewer should be told about a rule that a workload wrote: nothing that it
// says of itself is taken on trust.
func ruleNotes(rule *policy.Rule, by string) []string {
	n := &noteList{}
	for _, b := range rule.Binaries {
		n.add(strings.Contains(b.Path, "*"), "Binary '%s' is a pattern: every program whose path matches may use the rule.",
			b.Path)
		n.add(!strings.Contains(b.Path, "*") && b.Path != by, "The rule is for '%s', and '%s' asks for it.", b.Path, by)
	}
	for i := range rule.Endpoints {
		n.endpoint(&rule.Endpoints[i])
	}
	return n.notes
}

type noteList struct{ notes []string }

// add adds a note once. Its arguments are made fit to show.
func (n *noteList) add(when bool, format string, args ...any) {
	if !when || len(n.notes) == maxNotes {
		return
	}
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = audit.Escape(s, maxShownName)
		}
	}
	note := fmt.Sprintf(format, args...)
	if !slices.Contains(n.notes, note) {
		n.notes = append(n.notes, note)
	}
	if len(n.notes) == maxNotes {
		n.notes[maxNotes-1] = "There is more to be said about this rule than fits here: look at the rule itself."
	}
}

func (n *noteList) endpoint(e *policy.Endpoint) {
	n.add(e.Host == "", "An endpoint has no host: any host within its allowed_ips may be reached.")
	n.add(strings.Contains(e.Host, "*"), "Host '%s' is a pattern: every name that matches may be reached.", e.Host)
	for _, ip := range e.AllowedIPs {
		n.add(!publicPrefix(ip), "allowed_ips has '%s', which is not public: internal services may be reached.", ip)
	}
	if addr, err := netip.ParseAddr(e.Host); err == nil {
		var public engine.Match // without a rule only public addresses may be dialled
		n.add(public.CheckAddress(addr, 443) != nil, "Destination '%s' is an internal/private address.", e.Host)
	}
	for _, port := range e.PortList() {
		n.add(port >= firstEphemeral, "Port %d is in the ephemeral range - this may be a temporary service.", port)
		n.add(slices.Contains(databases, port), "Port %d is a database or message service (%s).", port, services[port])
	}
	host := e.Host
	n.add(e.TLS == policy.TLSSkip, "TLS to '%s' is passed on uninspected (tls: skip).", host)
	n.add(e.Rules == nil && (e.Access == "" || e.Access == policy.AccessFull), "Everything may be said to '%s'.", host)
	n.add(e.Access == policy.AccessReadWrite, "Every path of '%s' may be read and written.", host)
	n.add(e.Access == policy.AccessReadOnly, "Every path of '%s' may be read.", host)
	n.add(e.Rules != nil && e.Enforcement != policy.EnforcementEnforce,
		"What the rules for '%s' do not allow is only logged: enforcement is not enforce.", host)
	for i := range e.Rules {
		m := &e.Rules[i].Allow
		n.add(m.Method == "*", "Any method is allowed on '%s'.", host)
		n.add(strings.EqualFold(m.Method, "DELETE"), "DELETE is allowed on '%s'.", host)
		n.add(broad(m.Path), "Path '%s' of '%s' covers whatever is below it.", m.Path, host)
	}
}

// broad reports whether a path pattern crosses segments.
func broad(pattern string) bool { return strings.Contains(pattern, "**") }

// publicPrefix reports whether a prefix, or address, begins and ends in public space. One that is
// broad enough to have both ends there and private addresses between counts as not public.
func publicPrefix(s string) bool {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4() && prefix.Bits() < 16 || prefix.Addr().Is6() && prefix.Bits() < 32 {
		return false
	}
	var public engine.Match
	first := prefix.Masked().Addr()
	last := lastOf(prefix)
	return public.CheckAddress(first, 443) == nil && public.CheckAddress(last, 443) == nil
}

func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Masked().Addr().AsSlice()
	for bit := prefix.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}
