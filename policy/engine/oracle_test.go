// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
)

// The oracle decides like the engine, without an index and in the plainest way:
// each rule, each endpoint and each pattern is tried. It knows REST only; what the
// other protocols make of content has tables of its own.
type oracle struct {
	p          *policy.Policy
	permissive bool
}

// globs is the dialect of patterns by recursion. A component is what is between two
// separators.
func globs(pattern, text string, sep byte) bool {
	if pattern == "" {
		return text == ""
	}
	switch {
	case strings.HasPrefix(pattern, "**"):
		// Only generated as a whole component.
		rest := pattern[2:]
		if rest == "" {
			return true
		}
		if sep == '/' && globs(rest[1:], text, sep) {
			return true // no component at all
		}
		for i := range len(text) {
			if text[i] == sep && globs(rest[1:], text[i+1:], sep) && (sep == '/' || i > 0) {
				return true
			}
		}
		return false
	case pattern[0] == '*':
		for i := 0; i <= len(text); i++ {
			if globs(pattern[1:], text[i:], sep) {
				return true
			}
			if i < len(text) && text[i] == sep {
				return false
			}
		}
		return false
	case pattern[0] == '?':
		return text != "" && text[0] != sep && globs(pattern[1:], text[1:], sep)
	case pattern[0] == '\\':
		return text != "" && text[0] == pattern[1] && globs(pattern[2:], text[1:], sep)
	case pattern[0] == '[':
		end := strings.IndexByte(pattern, ']')
		if text == "" || text[0] == sep {
			return false
		}
		in := strings.IndexByte(strings.TrimLeft(pattern[1:end], "!"), text[0]) >= 0
		return in != (pattern[1] == '!') && globs(pattern[end+1:], text[1:], sep)
	case pattern[0] == '{':
		end := strings.IndexByte(pattern, '}')
		for alternative := range strings.SplitSeq(pattern[1:end], ",") {
			if globs(alternative+pattern[end+1:], text, sep) {
				return true
			}
		}
		return false
	}
	return text != "" && text[0] == pattern[0] && globs(pattern[1:], text[1:], sep)
}

// hostIs compares a request's host with an endpoint's.
func hostIs(pattern, host string) bool {
	pattern, host = plainHost(pattern), plainHost(host)
	ip := net.ParseIP(host)
	if other := net.ParseIP(pattern); other != nil {
		return ip != nil && other.Equal(ip)
	}
	if !strings.Contains(pattern, "*") {
		return pattern == host
	}
	if ip != nil {
		return false
	}
	want, have := strings.Split(pattern, "."), strings.Split(host, ".")
	if slices.Contains(have, "") {
		return false
	}
	if want[0] == "**" {
		if len(have) < len(want) {
			return false
		}
		have = have[len(have)-len(want):]
		want[0] = "*"
	}
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); !ok || err != nil {
			return false
		}
	}
	return true
}

func plainHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.Contains(host, ":") {
		host = strings.Trim(host, "[]")
	}
	return host
}

func binaryIs(r *policy.Rule, q *decision.Action) bool {
	if r.Binaries == nil {
		return true
	}
	for _, b := range r.Binaries {
		for _, exe := range append([]string{q.Binary}, q.Ancestors...) {
			if !strings.HasPrefix(exe, "/") {
				continue // no path, and so no program that can be named
			}
			if b.Path == exe && !strings.Contains(b.Path, "*") || strings.Contains(b.Path, "*") && globs(b.Path, exe, '/') {
				return true
			}
		}
	}
	return false
}

// oracleGrant is an endpoint that is for the connection.
type oracleGrant struct {
	key     string
	learned bool
	*policy.Endpoint
}

func (o *oracle) grants(q *decision.Action) (granted []oracleGrant, named bool) {
	for key, r := range o.p.Network {
		for i := range r.Endpoints {
			e := &r.Endpoints[i]
			if !slices.Contains(e.PortList(), q.Port) || (e.Protocol == "udp") != (q.Protocol == "udp") || e.Host != "" && !hostIs(e.Host, q.Host) {
				continue
			}
			named = true
			if binaryIs(r, q) {
				granted = append(granted, oracleGrant{key, r.Learned, e})
			}
		}
	}
	return granted, named
}

func inAny(ip net.IP, cidrs ...string) bool {
	return slices.ContainsFunc(cidrs, func(cidr string) bool {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			panic(err)
		}
		return n.Contains(ip) && (n.IP.To4() != nil) == (ip.To4() != nil)
	})
}

// embeds returns the IPv4 address that is behind an IPv6 one.
func embeds(ip net.IP) net.IP {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	switch {
	case inAny(ip, "64:ff9b::/96", "::/96"):
		return ip[12:16].To4()
	case inAny(ip, "2002::/16"):
		return ip[2:6].To4()
	}
	return ip
}

func neverDialled(ip net.IP) bool {
	return inAny(ip, "::/128", "::1/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128") ||
		inAny(embeds(ip), "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32")
}

func private(ip net.IP) bool {
	return inAny(ip, "fc00::/7", "2001:db8::/32") || inAny(embeds(ip), "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
		"192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24")
}

// reaches decides about one address: each way to name the host by itself.
func (o *oracle) reaches(granted []oracleGrant, ip net.IP, port uint16) bool {
	if neverDialled(ip) {
		return false
	}
	if len(granted) == 0 {
		return !private(ip)
	}
	kinds := map[string][]oracleGrant{}
	for _, g := range granted {
		kind := "exact"
		if g.Host == "" {
			kind = "none"
		} else if strings.Contains(g.Host, "*") {
			kind = "wildcard"
		}
		kinds[kind] = append(kinds[kind], g)
	}
	controlPlane := slices.Contains([]uint16{2379, 2380, 6443, 10250, 10255}, port)
	for kind, all := range kinds {
		listed, within, trusted := false, false, false
		for _, g := range all {
			for _, entry := range g.AllowedIPs {
				listed = true
				if !strings.Contains(entry, "/") {
					entry = netip.PrefixFrom(netip.MustParseAddr(entry), netip.MustParseAddr(entry).BitLen()).String()
				}
				within = within || inAny(ip, entry)
			}
			trusted = trusted || kind == "exact" && !g.learned
		}
		switch {
		case within, !listed && trusted:
			if !controlPlane {
				return true
			}
		case !listed && !private(ip):
			return true
		}
	}
	return false
}

func (o *oracle) httpAllowed(m *policy.L7Match, method, target string, query map[string][]string, deny bool) bool {
	switch {
	case m.Method == "*" || strings.EqualFold(m.Method, method):
	case strings.EqualFold(m.Method, "GET") && strings.EqualFold(method, "HEAD"):
	default:
		return false
	}
	if !globs(m.Path, target, '/') {
		return false
	}
	for key, matcher := range m.Query {
		hits := 0
		for _, value := range query[key] {
			if slices.ContainsFunc(matcher.Any, func(glob string) bool { return globs(glob, value, '.') }) {
				hits++
			}
		}
		if hits == 0 || !deny && hits < len(query[key]) {
			return false
		}
	}
	return true
}

var oraclePresets = map[string]string{"read-only": "GET HEAD OPTIONS", "read-write": "GET HEAD OPTIONS POST PUT PATCH", "full": "*"}

// decide returns the decision, its layer and the policy.
func (o *oracle) decide(q *decision.Action, canonical string, query map[string][]string) decision.Answer {
	granted, _ := o.grants(q)
	d := decision.Answer{Decision: "allow", Layer: "l4"}
	for _, g := range granted {
		if d.Policy == "" || g.key < d.Policy {
			d.Policy = g.key
		}
	}
	if len(granted) == 0 && !o.permissive {
		return decision.Answer{Decision: "deny", Layer: "l4"}
	}
	for _, s := range append(slices.Clone(q.ResolvedIPs), plainHost(q.Host)) {
		if ip := net.ParseIP(s); ip != nil && !o.reaches(granted, ip, q.Port) {
			return decision.Answer{Decision: "deny", Layer: "ssrf", Policy: d.Policy}
		}
	}
	inspected := slices.ContainsFunc(granted, func(g oracleGrant) bool { return g.Protocol == "rest" })
	switch {
	case len(granted) == 0:
		d.Decision = "audit"
		return d
	case q.HTTP == nil || !inspected:
		return d
	}
	d.Layer = "l7"
	allowed, denied, best, enforced := false, false, -1, true
	for _, g := range granted {
		if g.Protocol != "rest" || !o.pathIs(g.Path, canonical) {
			continue
		}
		specificity := len(strings.ReplaceAll(g.Path, "*", ""))
		if g.Path == "/**" {
			specificity = 0
		}
		switch enforces := g.Enforcement == "enforce"; {
		case specificity > best:
			best, enforced = specificity, enforces
		case specificity == best:
			enforced = enforced || enforces
		}
		for _, method := range strings.Fields(oraclePresets[g.Access]) {
			allowed = allowed || method == "*" || strings.EqualFold(method, q.HTTP.Method)
		}
		for i := range g.Rules {
			allowed = allowed || o.httpAllowed(&g.Rules[i].Allow, q.HTTP.Method, canonical, query, false)
		}
		for i := range g.DenyRules {
			denied = denied || o.httpAllowed(&g.DenyRules[i], q.HTTP.Method, canonical, query, true)
		}
	}
	switch {
	case allowed && !denied:
	case enforced && !o.permissive:
		d.Decision = "deny"
	default:
		d.Decision = "audit"
	}
	return d
}

// pathIs matches an endpoint's path, in which `*` crosses.
func (o *oracle) pathIs(pattern, target string) bool {
	if base, ok := strings.CutSuffix(pattern, "/**"); ok {
		return target == base || strings.HasPrefix(target, base+"/")
	}
	return pattern == "" || globs(pattern, target, 0)
}
