// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// Connection is what is known of a connection before its first byte.
type Connection struct {
	// Binary is the path of the connecting process's executable. What does not begin
	// with a slash is none, and matched by no rule that names programs.
	Binary string
	// Ancestors are its ancestors' executables, the nearest first. A rule for
	// an ancestor's binary covers the process.
	Ancestors []string
	// Aliases are what the binary and its ancestors are called besides their
	// paths, see Options.BinaryAliases. "" stands for none.
	Aliases []string
	// Host is the name the connection was opened for, or an address.
	Host     string
	Port     uint16
	Protocol string // "" and "tcp", or "udp"
}

// Match is the decision on a connection, and what later decisions on its
// addresses and requests are made by. The zero value allows nothing.
type Match struct {
	Allowed bool
	// Policy is the smallest key of the rules that match; "" when denied.
	Policy string
	// Reason says in OpenShell's words why the connection is denied.
	Reason string
	// TLSSkip: TLS must be spliced, not terminated.
	TLSSkip bool
	// Inspect: an endpoint has an L7 protocol, so that every HTTP request has
	// to be decided by Request, and what is not HTTP refused.
	Inspect bool

	trusted  []netip.Prefix // of Options
	metadata bool           // the host is a cloud's metadata service
	content  bool           // an endpoint decides by more than method, path and query
	// The matched endpoints. The first few are held in place: a decision on a
	// connection does not allocate.
	few   [4]*endpoint
	more  []*endpoint
	count int
}

// NamesMetadata reports whether the host is a cloud's metadata service by its name.
func (m *Match) NamesMetadata() bool { return m.metadata }

// Connect decides a connection: it is allowed if one rule has both the
// endpoint and the binary (or an ancestor's).
func (e *Engine) Connect(c Connection) Match {
	var m Match
	host := wildcard.CanonicalHost(c.Host)
	m.metadata, m.trusted = wildcard.IsMetadataHost(host), e.trusted
	s := policy.Service{Port: c.Port, UDP: c.Protocol == policy.ProtocolUDP}
	if c.Protocol != "" && c.Protocol != policy.ProtocolTCP && c.Protocol != policy.ProtocolUDP {
		m.Reason = fmt.Sprintf("protocol %s is not allowed by any policy", printable.Text(c.Protocol))
		return m
	}
	named := false // a rule names the endpoint, if not for this binary
	if addr, literal := wildcard.HostAddr(host); literal {
		named = m.collect(e.addrs[addrKey{ipaddr.Plain(addr), s}], &c)
	} else {
		named = m.collect(e.names[nameKey{host, s}], &c)
		e.wildcards.Any(host, func(w *wildcard.HostEntry[serviceBuckets]) bool {
			named = m.collect(w.Value[s], &c) || named
			return false
		})
	}
	named = m.collect(e.hostless[s], &c) || named
	switch {
	case m.count > 0:
		m.conclude()
	case named:
		m.Reason = e.binaryReason(host, s, &c)
	case e.empty:
		m.Reason = "network connections not allowed by policy"
	default:
		m.Reason = fmt.Sprintf("endpoint %s is not allowed by any policy", joinHostPort(printable.Text(c.Host), c.Port))
	}
	return m
}

// joinHostPort puts an IPv6 address in brackets, once.
func joinHostPort(host string, port uint16) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// collect adds the bucket's endpoints for the connection's binaries. It
// reports whether there is a bucket.
func (m *Match) collect(b *bucket, c *Connection) bool {
	if b == nil {
		return false
	}
	m.addAll(b.any)
	m.addAll(b.exact[c.Binary])
	for _, ancestor := range c.Ancestors {
		m.addAll(b.exact[ancestor])
	}
	for _, alias := range c.Aliases {
		m.addAll(b.exact[alias])
	}
	m.addGlobs(b, c.Binary)
	for _, ancestor := range c.Ancestors {
		m.addGlobs(b, ancestor)
	}
	return true
}

func (m *Match) addGlobs(b *bucket, binary string) {
	if !strings.HasPrefix(binary, "/") {
		return
	}
	b.globs.Any(binary, func(g binaryGlob) bool {
		if g.glob.Match(binary) {
			m.add(g.endpoint)
		}
		return false
	})
}

func (m *Match) addAll(endpoints []*endpoint) {
	for _, ep := range endpoints {
		m.add(ep)
	}
}

// add adds an endpoint once, though it may be found by several paths.
func (m *Match) add(ep *endpoint) {
	for i := range m.count {
		if m.at(i) == ep {
			return
		}
	}
	if m.count < len(m.few) {
		m.few[m.count] = ep
	} else {
		m.more = append(m.more, ep)
	}
	m.count++
}

// Rules returns the sorted keys of the rules that allow the connection.
func (m *Match) Rules() []string {
	var keys []string
	for i := range m.count {
		keys = append(keys, m.at(i).rule.key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// at returns the i-th matched endpoint.
func (m *Match) at(i int) *endpoint {
	if i < len(m.few) {
		return m.few[i]
	}
	return m.more[i-len(m.few)]
}

// conclude derives what is exported from the matched endpoints.
func (m *Match) conclude() {
	m.Allowed = true
	m.Policy = m.few[0].rule.key
	for i := range m.count {
		ep := m.at(i)
		m.Policy = min(m.Policy, ep.rule.key)
		m.Inspect = m.Inspect || ep.inspect()
		m.content = m.content || ep.inspector != nil
		m.TLSSkip = m.TLSSkip || ep.tlsSkip
	}
	// What has to be inspected cannot be spliced, whoever else asks for it.
	m.TLSSkip = m.TLSSkip && !m.Inspect
}

// reasonRules bounds how many rules a reason names.
const reasonRules = 3

// binaryReason says which rules name the endpoint for other binaries.
func (e *Engine) binaryReason(host string, s policy.Service, c *Connection) string {
	keys := e.rulesFor(host, s, reasonRules+1)
	var reasons []string
	for _, key := range keys[:min(len(keys), reasonRules)] {
		reasons = append(reasons, fmt.Sprintf("binary '%s' not allowed in policy '%s' (ancestors: [%s])",
			printable.Text(c.Binary), printable.Text(key), printable.Text(strings.Join(c.Ancestors, " -> "))))
	}
	reason := strings.Join(reasons, "; ")
	if len(keys) > reasonRules {
		reason += "; nor in any other policy"
	}
	if !strings.HasPrefix(c.Binary, "/") {
		return reason + ". The program is not a file that the container shows at a path: no rule for programs matches it"
	}
	return reason + ". SYMLINK HINT: the binary is the path the kernel resolved, not a symbolic link's"
}
