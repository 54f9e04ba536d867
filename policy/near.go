// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// NearRule is a rule that does not allow an action, and why not.
type NearRule struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	// Distance orders the rules: 1 where only the request differs, 2 the
	// program, 3 the port, 4 and more the host.
	Distance int `json:"distance"`
}

// Describe is what a program does to an endpoint, in the words of Diff: "/usr/bin/curl GET
// https://host:443/path". A request has a method and a path; protocol is tcp or udp otherwise.
func Describe(binary, host string, port uint16, protocol string, request *L7Match) string {
	e := Endpoint{Host: host, Protocol: cmp.Or(protocol, ProtocolTCP)}
	if request != nil {
		e.Protocol, e.Enforcement, e.Rules = ProtocolREST, EnforcementEnforce, []L7Allow{{*request}}
	}
	return printable.Text(binary + " " + e.statements(port)[0])
}

// maxNearest bounds how many rules an Explanation names.
const maxNearest = 3

// Nearest finds the rules that come nearest to allowing what is done to an endpoint, the nearest first.
// matched are the keys of those that name it for the program that does it.
func (p *Policy) Nearest(host string, port uint16, udp bool, matched []string) []NearRule {
	best := map[string]NearRule{}
	for key, rule := range p.Network {
		for i := range rule.Endpoints {
			near, ok := rule.Endpoints[i].distance(rule, wildcard.CanonicalHost(host), port, udp, slices.Contains(matched, key))
			near.Rule = key
			if old, found := best[key]; ok && (!found || near.Distance < old.Distance) {
				best[key] = near
			}
		}
	}
	sorted := slices.SortedFunc(maps.Values(best), func(a, b NearRule) int {
		return cmp.Or(a.Distance-b.Distance, strings.Compare(a.Rule, b.Rule))
	})
	return sorted[:min(len(sorted), maxNearest)]
}

// distance says how far an endpoint is from another host and port, and whether it is worth a word.
func (e *Endpoint) distance(rule *Rule, host string, port uint16, udp, matched bool) (NearRule, bool) {
	own := wildcard.CanonicalHost(e.Host)
	sameHost := own == "" || own == host || strings.Contains(own, "*") && wildcardMatches(own, host)
	samePort := slices.Contains(e.PortList(), port) && (e.Protocol == ProtocolUDP) == udp
	switch {
	case sameHost && samePort && matched:
		return NearRule{Distance: 1, Reason: "names the endpoint for this program, and allows " + e.allows()}, true
	case own == "":
		return NearRule{}, false // any host: no likeness
	case sameHost && samePort:
		return NearRule{Distance: 2, Reason: "names the endpoint for other programs: " + rule.programs()}, true
	case sameHost:
		return NearRule{Distance: 3, Reason: "names the host on other ports: " + e.portText()}, true
	}
	if d := hostDistance(own, host); d > 0 {
		return NearRule{Distance: 3 + d, Reason: "names a similar host: " + printable.Text(e.Host)}, true
	}
	return NearRule{}, false
}

func wildcardMatches(pattern, host string) bool {
	var x wildcard.HostIndex[struct{}]
	x.Add(pattern)
	return x.Any(host, func(*wildcard.HostEntry[struct{}]) bool { return true })
}

// maxNamed bounds how many parts a reason lists.
const maxNamed = 4

func listed(parts []string) string {
	if more := len(parts) - maxNamed; more > 0 {
		parts = append(slices.Clip(parts[:maxNamed]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

func (r *Rule) programs() string {
	var paths []string
	for _, b := range r.Binaries {
		paths = append(paths, printable.Text(b.Path))
	}
	return listed(paths)
}

func (e *Endpoint) portText() string {
	var ports []string
	for _, port := range e.PortList() {
		text := fmt.Sprint(port)
		if e.Protocol == ProtocolUDP {
			text += "/udp"
		}
		ports = append(ports, text)
	}
	return listed(ports)
}

// allows says what may be requested of an endpoint.
func (e *Endpoint) allows() string {
	if e.Access != "" {
		return "access " + e.Access
	}
	if len(e.Rules) == 0 {
		return "any connection"
	}
	var rules []string
	for i := range e.Rules {
		rules = append(rules, printable.Text(e.Rules[i].Allow.Describe("")))
	}
	return listed(rules)
}

// hostDistance says how much a rule's host is like another: 1 where it is a slip
// of the pen or the wildcard of another depth, 2 where both are of one domain,
// 0 where they have nothing in common.
func hostDistance(own, host string) int {
	domain := strings.TrimLeft(own, "*.")
	switch {
	case host == domain, strings.Contains(own, "*") && strings.HasSuffix(host, "."+domain), fewEdits(own, host):
		return 1
	case lastLabels(own, 2) == lastLabels(host, 2) && strings.Contains(lastLabels(host, 2), "."):
		if _, literal := wildcard.HostAddr(host); !literal {
			return 2
		}
	}
	return 0
}

func lastLabels(host string, n int) string {
	labels := strings.Split(host, ".")
	return strings.Join(labels[max(0, len(labels)-n):], ".")
}

// fewEdits reports whether two names differ in at most two characters that are
// missing, added or other (Levenshtein distance). Short names always would.
func fewEdits(a, b string) bool {
	const most = 2
	if min(len(a), len(b)) < 6 || max(len(a), len(b)) > 253 || max(len(a), len(b))-min(len(a), len(b)) > most {
		return false
	}
	return editDistance(a, b) <= most
}
