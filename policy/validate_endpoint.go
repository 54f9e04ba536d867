// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// What is read of one request that is decided by its body, in bytes.
const (
	defaultInspectedBytes = 64 << 10
	maxInspectedBytes     = 64 << 20
)

func (v *validator) endpoint(path string, e *Endpoint) {
	v.host(path, e)
	v.ports(path, e)
	for i, entry := range e.AllowedIPs {
		v.allowedIP(Element(path+".allowed_ips", i), entry)
	}
	if !oneOf(e.TLS, TLSSkip) {
		v.problem(path+".tls", "unsupported tls value %q: use skip, or remove it for automatic handling", e.TLS)
	}
	if !oneOf(e.Enforcement, EnforcementEnforce, EnforcementAudit) {
		v.problem(path+".enforcement", "must be enforce or audit, not %q", e.Enforcement)
	}
	if !oneOf(e.Access, AccessReadOnly, AccessReadWrite, AccessFull) {
		v.problem(path+".access", "must be read-only, read-write or full, not %q", e.Access)
	}
	v.protocolOptions(path, e)
	switch e.Protocol {
	case "", ProtocolTCP, ProtocolUDP:
		v.transport(path, e)
	case ProtocolSQL:
		v.sql(path, e)
	case ProtocolREST, ProtocolWebSocket, ProtocolGraphQL, ProtocolJSONRPC, ProtocolMCP:
		v.inspected(path, e)
	default:
		v.problem(path+".protocol", "unknown protocol '%s' (expected tcp, udp, rest, websocket, graphql, sql, json-rpc, or mcp)", printable.Text(e.Protocol))
	}
}

func (v *validator) host(path string, e *Endpoint) {
	at := path + ".host"
	if e.Host == "" {
		if len(e.AllowedIPs) == 0 || e.Protocol == ProtocolTCP {
			v.problem(at, "endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint")
		}
		return
	}
	if err := wildcard.CheckHost(e.Host); err != nil {
		v.problem(at, "%v", err)
		return
	}
	host := wildcard.CanonicalHost(e.Host)
	addr, literal := wildcard.HostAddr(host)
	switch {
	case literal && addr.Zone() != "":
		v.problem(at, "address %s must not have a zone", e.Host)
	case literal && e.Protocol == ProtocolTCP:
		v.problem(at, "protocol tcp endpoint '%s' must use a DNS hostname, not an IP literal; remove protocol", e.Host)
	case literal && ipaddr.Never(ipaddr.Plain(addr)) != "":
		v.warn(at, "%s is never reachable: it is always blocked (%s)", e.Host, ipaddr.Never(ipaddr.Plain(addr)))
	case wildcard.IsMetadataHost(host):
		v.warn(at, "%s is never reachable: cloud metadata services are always blocked", e.Host)
	}
}

func (v *validator) ports(path string, e *Endpoint) {
	switch {
	case e.Port != 0 && len(e.Ports) > 0:
		v.problem(path+".ports", "port and ports are mutually exclusive; use ports for multiple ports")
	case len(e.PortList()) == 0:
		v.problem(path+".port", "endpoint '%s' must declare at least one port", printable.Text(e.Host))
	case slices.Contains(e.Ports, 0):
		v.problem(path+".ports", "invalid port 0; expected 1..=65535")
	}
}

func (v *validator) allowedIP(path, entry string) {
	prefix, err := checkAllowedIP(entry)
	switch {
	case err != nil:
		v.problem(path, "%v", err)
	case prefix.Addr().Is4() && prefix.Bits() < 16, prefix.Addr().Is6() && prefix.Bits() < 32:
		v.warn(path, "%s is a very broad range", entry)
	}
}

// transport checks an endpoint that is decided per connection. What could only
// be decided per request is refused: ignoring it would allow more than is said.
func (v *validator) transport(path string, e *Endpoint) {
	switch {
	case e.Protocol != "" && (e.Access != "" || e.Rules != nil || e.DenyRules != nil):
		v.problem(path, "protocol %s does not support access, rules, or deny_rules; remove those L7 fields", e.Protocol)
	case e.DenyRules != nil:
		v.problem(path+".deny_rules", "deny_rules require protocol (L7 inspection must be enabled)")
	case e.Rules != nil:
		v.problem(path+".rules", "rules require protocol: rest (L7 inspection must be enabled)")
	case e.Access == AccessReadOnly || e.Access == AccessReadWrite:
		v.problem(path+".access", "access %s requires protocol: rest (L7 inspection must be enabled)", e.Access)
	case e.Path != "":
		v.problem(path+".path", "path requires protocol: rest (L7 inspection must be enabled)")
	case e.AllowEncodedSlash:
		v.problem(path+".allow_encoded_slash", "allow_encoded_slash requires protocol: rest")
	case e.Protocol == ProtocolUDP && e.TLS != "":
		v.problem(path+".tls", "tls does not apply to protocol udp: remove it")
	case e.Access != "", e.Enforcement != "":
		v.warn(path, "access and enforcement have no effect without protocol: rest; every connection is allowed")
	}
}

// sql checks an endpoint for databases. OpenShell does not parse SQL either:
// the connection is allowed as a whole.
func (v *validator) sql(path string, e *Endpoint) {
	v.allowSet(path, e)
	if e.Enforcement == EnforcementEnforce {
		v.problem(path+".enforcement", "SQL enforcement requires full SQL parsing (not available). Use enforcement: audit.")
	}
	if e.Path != "" {
		v.problem(path+".path", "path does not apply to protocol sql: remove it")
	}
	v.warn(path, "protocol sql is not inspected: every connection is allowed, whatever the commands")
	v.matches(path, e)
}

// inspected checks an endpoint that is decided per request.
func (v *validator) inspected(path string, e *Endpoint) {
	v.allowSet(path, e)
	if e.TLS == TLSSkip {
		v.problem(path+".tls", "tls: skip cannot be combined with protocol: %s; requests within spliced TLS cannot be decided", e.Protocol)
	}
	if e.Protocol == ProtocolMCP && e.Host == "" {
		v.problem(path+".host", "protocol mcp requires host; protocol alone is not a wildcard endpoint")
	}
	if e.Enforcement == "" && e.Access != AccessFull {
		v.warn(path, "enforcement is audit by default: what the rules deny is only logged; say enforcement: enforce")
	}
	if e.Path != "" && v.plainText(path+".path", e.Path, maxPathBytes) {
		if !strings.HasPrefix(e.Path, "/") && e.Path != "**" {
			v.problem(path+".path", "path must start with '/' or be '**'")
		} else if _, err := wildcard.CompileEndpointPath(e.Path); err != nil {
			v.problem(path+".path", "%v", err)
		}
	}
	v.matches(path, e)
}

// allowSet checks that an endpoint says what it allows, and in one way.
func (v *validator) allowSet(path string, e *Endpoint) {
	none := e.Rules == nil && e.Access == ""
	switch {
	case e.Access != "" && e.Protocol == ProtocolMCP:
		v.problem(path+".access", "protocol mcp does not support access presets; use rules/deny_rules or set mcp.allow_all_known_mcp_methods: true for an allow-all MCP policy")
	case e.Access != "" && e.Protocol == ProtocolJSONRPC:
		v.problem(path+".access", `protocol json-rpc does not support access presets; use explicit rules with allow.method such as "*"`)
	case e.Rules != nil && e.Access != "":
		v.problem(path+".access", "rules and access are mutually exclusive")
	case e.Rules != nil && len(e.Rules) == 0:
		v.problem(path+".rules", "rules is an empty list: add rules, or use access")
	case none && e.Protocol == ProtocolMCP:
		if !e.AllowsKnownMCPMethods() {
			v.problem(path+".rules", "protocol mcp requires rules when mcp.allow_all_known_mcp_methods is false")
		}
	case none && e.DenyRules != nil:
		v.problem(path+".deny_rules", "deny_rules require rules or access to define the base allow set")
	case none && e.Protocol == ProtocolJSONRPC:
		v.problem(path+".rules", "protocol json-rpc requires explicit rules with allow.method")
	case none:
		v.problem(path+".rules", "protocol requires rules or access to define allowed traffic")
	}
	if e.DenyRules != nil && len(e.DenyRules) == 0 {
		v.problem(path+".deny_rules", "deny_rules is an empty list: remove it")
	}
}

// protocolOptions checks the fields of single protocols. One of another
// protocol that could only narrow or bound is warned of.
func (v *validator) protocolOptions(path string, e *Endpoint) {
	graphql := e.PersistedQueries != "" || e.GraphQLPersistedQueries != nil || e.GraphQLMaxBodyBytes != 0
	l4 := e.Protocol == ProtocolTCP || e.Protocol == ProtocolUDP
	switch {
	case l4 && (graphql || e.JSONRPC != nil || e.MCP != nil):
		v.problem(path, "protocol %s does not support L7-only fields: remove persisted_queries, graphql_persisted_queries, graphql_max_body_bytes, json_rpc and mcp", e.Protocol)
	case graphql && e.Protocol != ProtocolGraphQL && e.Protocol != ProtocolWebSocket:
		v.warn(path, "GraphQL-specific endpoint fields are ignored unless protocol is graphql or websocket")
	}
	if !oneOf(e.PersistedQueries, PersistedQueriesDeny, PersistedQueriesAllowRegistered) {
		v.problem(path+".persisted_queries", "persisted_queries must be 'deny' or 'allow_registered', got '%s'", printable.Text(e.PersistedQueries))
	}
	for _, key := range slices.Sorted(maps.Keys(e.GraphQLPersistedQueries)) {
		at := Child(path+".graphql_persisted_queries", key)
		if v.plainText(at, key, maxNameBytes) && key == "" {
			v.problem(at, "is keyed by the hash or id of the query, which must not be empty")
		}
		operation := e.GraphQLPersistedQueries[key]
		v.registered(at, &operation)
	}
	if e.JSONRPC != nil && e.Protocol != ProtocolJSONRPC && !l4 {
		v.warn(path+".json_rpc", "is ignored unless protocol is json-rpc")
	}
	switch {
	case e.MCP == nil || e.Protocol == ProtocolMCP || l4:
	case e.MCP.StrictToolNames != nil:
		v.problem(path+".mcp.strict_tool_names", "mcp.strict_tool_names is only valid for protocol mcp")
	case e.MCP.AllowAllKnownMCPMethods:
		v.problem(path+".mcp.allow_all_known_mcp_methods", "mcp.allow_all_known_mcp_methods is only valid for protocol mcp")
	default:
		v.warn(path+".mcp", "is ignored unless protocol is mcp")
	}
}
