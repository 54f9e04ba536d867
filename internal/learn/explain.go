// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// services are the ports that make a destination more plausible, as in OpenShell's
// mechanistic mapper, with the names of those that people know.
var services = map[uint16]string{
	22: "SSH", 53: "DNS", 80: "HTTP", 443: "HTTPS", 587: "SMTP", 993: "IMAPS", 995: "POP3S",
	2181: "ZooKeeper", 3306: "MySQL", 5432: "PostgreSQL", 5672: "AMQP", 6379: "Redis", 6443: "Kubernetes",
	8080: "HTTP", 8443: "HTTPS", 9092: "Kafka", 9200: "Elasticsearch", 11211: "memcached", 27017: "MongoDB",
}

// wellKnown is OpenShell's list: it has no SSH.
func wellKnown(port uint16) bool { return services[port] != "" && port != 22 }

// databases are the ports whose services rarely belong to an untrusted workload.
var databases = []uint16{3306, 5432, 5672, 6379, 9200, 11211, 27017}

// firstEphemeral is where the dynamic ports of RFC 6335 begin, less one, as in OpenShell.
const firstEphemeral = 49153

// Notes that say more than the rule does. Nothing is decided by them.
const (
	noteInexpressible = "Some requests cannot be written as a rule literally, and were left out: see the samples."
	noteTruncated     = "Some evidence was lost because there was too much of it: the rule may not cover all that was used."
	noteReplaced      = "The program's content has changed between denials."
	noteMixed         = "The connection carried HTTP and other content: the rule allows all of it, unseen."
	noteTLSSkip       = "The program does not trust the sandbox's CA: its TLS is passed on uninspected."
	noteTLSFault      = "TLS is passed on uninspected, since the sandbox cannot speak it with the origin: "
	noteTLSLeft       = "Some connections could only be passed on uninspected, which the rule does not allow: "
	noteWidened       = "There were too many different requests to list: the rule allows more than was seen."
)

// confidence is OpenShell's estimate, 0.1 to 0.95, of how likely the destination is needed.
func (e *Evidence) confidence() float64 {
	c := 0.5
	switch {
	case e.hits >= 10:
		c += 0.2
	case e.hits >= 3:
		c += 0.1
	}
	if wellKnown(e.target.port) {
		c += 0.15
	}
	return math.Round(min(max(c, 0.1), 0.95)*100) / 100
}

// maxNamedPaths is how many requests a rationale names.
const maxNamedPaths = 8

func (e *Evidence) rationale(rule *policy.Rule) string {
	s := fmt.Sprintf("Allow %s to connect to %s", path.Base(e.target.binary), e.target)
	switch name := services[e.target.port]; {
	case e.target.protocol != "":
		s += " over " + strings.ToUpper(e.target.protocol)
	case name != "":
		s += " (" + name + ")"
	}
	allowed := Grants(rule)
	if len(allowed) == 0 {
		return s + "."
	}
	var named []string
	for _, grant := range allowed[:min(len(allowed), maxNamedPaths)] {
		named = append(named, audit.Escape(grant, 128))
	}
	s += " with L7 inspection. Allowed paths: " + strings.Join(named, ", ")
	if more := len(allowed) - len(named); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s + "."
}

// notes are what a reviewer should be told besides the rule.
func (e *Evidence) notes(f Flags) []string {
	notes := []string{}
	add := func(when bool, note string) {
		if when {
			notes = append(notes, note)
		}
	}
	port := e.target.port
	add(e.internal(), fmt.Sprintf("Destination '%s' appears to be an internal/private address. "+
		"A learned rule does not open it: that needs allowed_ips in the base policy, or addresses.trusted in the configuration.", e.target.host))
	add(port >= firstEphemeral, fmt.Sprintf("Port %d is in the ephemeral range - this may be a temporary service.", port))
	add(slices.Contains(databases, port),
		fmt.Sprintf("Port %d is a database or message service (%s).", port, services[port]))
	add(e.tlsSkip, noteTLSSkip)
	add(e.tlsFault != "" && e.uninspected(), noteTLSFault+e.tlsFault)
	add(e.tlsFault != "" && !e.uninspected(), noteTLSLeft+e.tlsFault)
	add(e.mixed(), noteMixed)
	add(f.Widened, noteWidened)
	add(f.Inexpressible, noteInexpressible)
	add(f.Truncated, noteTruncated)
	add(f.Replaced, noteReplaced)
	return notes
}

// opaque reports whether the rule has to allow whole connections though content was seen.
func (e *Evidence) opaque() bool { return (e.raw || e.uninspected()) && !e.declared() }

// uninspected reports whether the rule has to pass TLS on. A fault of an origin whose requests were seen on other
// connections is no reason.
func (e *Evidence) uninspected() bool {
	return e.tlsSkip || e.tlsFault != "" && len(e.requests) == 0 && len(e.calls) == 0
}

// widened reports whether a bound has made a rule wider than what was seen.
func (e *Evidence) widened() bool {
	for _, set := range e.requests {
		if set.Truncated() {
			return true
		}
	}
	return false
}

// mixed reports whether requests were seen and are not what the rule lists.
func (e *Evidence) mixed() bool { return e.opaque() && len(e.samples) > 0 }

// internal reports whether the destination is, or resolved to, an address that is not public.
func (e *Evidence) internal() bool {
	addrs := e.ips
	if addr, err := netip.ParseAddr(e.target.host); err == nil {
		addrs = append(slices.Clone(addrs), addr)
	}
	var public engine.Match // without a rule only public addresses may be dialled
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return public.CheckAddress(a, e.target.port) != nil })
}
