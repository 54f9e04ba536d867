// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// maxBinary is PATH_MAX, in bytes.
const maxBinary = 4096

// target is what makes denials evidence for the same proposal, besides the policy.
type target struct {
	host     string
	port     uint16
	protocol string // udp, or empty: tcp
	binary   string

	tree      string // of files; the rest is empty then
	sensitive bool   // the tree itself is granted, though it is one of those that hold what decides over a system
}

// kind is that of the target's proposals.
func (t target) kind() string {
	if t.tree != "" {
		return KindFilesystem
	}
	return KindNetwork
}

// targetOf is what a rule for the denial would name. It is false where no rule can name
// it: an unknown program, a name that is none, or one that a pattern would take for a wildcard, or
// an endpoint that lacks no rule, but has one that denies.
func targetOf(d Denial) (target, bool) {
	t := target{
		host:   strings.TrimSuffix(strings.ToLower(d.Host), "."),
		port:   d.Port,
		binary: d.Binary,
	}
	if inner, ok := strings.CutPrefix(t.host, "["); ok && strings.HasSuffix(inner, "]") && strings.Contains(inner, ":") {
		t.host = strings.TrimSuffix(inner, "]") // an IPv6 address as URLs have it
	}
	if addr, err := netip.ParseAddr(t.host); err == nil {
		t.host = addr.Unmap().String() // one of the ways to write it
	}
	if d.Protocol == policy.ProtocolUDP {
		t.protocol = policy.ProtocolUDP
	}
	return t, t.port != 0 && nameable(t.host) && executable(t.binary) && (d.L7 == "" || len(d.Missing) > 0)
}

// nameable reports whether a host is an IP address or a host name (RFC 1123, and
// underscores), by which a rule matches it alone.
func nameable(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	if len(host) > 253 || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 ||
			!all(label, func(c byte) bool { return isLower(c) || isDigit(c) || c == '-' || c == '_' }) {
			return false
		}
	}
	return true
}

// executable reports whether a path names one program in a rule, where `*` is a wildcard. Names
// that do not fit in a YAML file as they are, or that cannot be shown to a reviewer, are refused too.
func executable(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= maxBinary &&
		!strings.ContainsAny(path, `*?[]{}`) && audit.Escape(path, maxBinary) == path
}

// dialable reports whether an address could be dialled if an operator wrote the target in a
// policy. Where the guard refuses even that, a proposal would be of no use. Names are
// for the guard to judge by what they resolve to.
func dialable(t target) bool {
	const key = "probe"
	probe := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{key: {
		Endpoints: []policy.Endpoint{{Host: t.host, Ports: []uint16{t.port}, Protocol: t.protocol}},
		Binaries:  []policy.Binary{{Path: t.binary}},
	}}}
	compiled, err := engine.Compile(probe, engine.Options{})
	if err != nil {
		return false
	}
	match := compiled.Connect(engine.Connection{Binary: t.binary, Host: t.host, Port: t.port, Protocol: t.protocol})
	if addr, err := netip.ParseAddr(t.host); err == nil {
		return match.CheckAddress(addr, t.port) == nil
	}
	return match.Allowed && compiled.NameKnown(t.host)
}

// A proposal's id is made from what identifies it. The long form is for the case that
// the short one belongs to another proposal, which a workload could arrange.
func shortID(policyName string, t target) string { return "p-" + t.hash(policyName)[:8] }
func longID(policyName string, t target) string  { return "p-" + t.hash(policyName)[:32] }

func (t target) hash(policyName string) string {
	text := fmt.Sprintf("%s\x00%s\x00%s\x00%d\x00%s", policyName, t.kind(), t.host, t.port, t.binary)
	if t.tree != "" {
		text = fmt.Sprintf("%s\x00%s\x00%s", policyName, t.kind(), t.tree)
	}
	if t.protocol != "" {
		text += "\x00" + t.protocol
	}
	if t.sensitive {
		text += "\x00sensitive"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (t target) String() string {
	if t.tree != "" {
		return t.tree
	}
	return fmt.Sprintf("%s:%d", t.host, t.port)
}

func (t target) compare(o target) int {
	return cmp.Or(cmp.Compare(t.host, o.host), cmp.Compare(t.port, o.port),
		cmp.Compare(t.protocol, o.protocol), cmp.Compare(t.binary, o.binary), cmp.Compare(t.tree,
			o.tree), compareBool(t.sensitive, o.sensitive))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
