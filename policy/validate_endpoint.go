package policy

import (
	"maps"
	"slices"
	"strings"
)

// futureProtocols are OpenShell's protocols that are not implemented yet.
var futureProtocols = []string{"websocket", "graphql", "sql", "json-rpc", "mcp"}

func (v *validator) endpoint(path string, e *Endpoint) {
	v.host(path, e)
	v.ports(path, e)
	for i, entry := range e.AllowedIPs {
		v.allowedIP(element(path+".allowed_ips", i), entry)
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
	switch {
	case slices.Contains(futureProtocols, e.Protocol):
		v.problem(path+".protocol", "protocol %q is not supported yet", e.Protocol)
	case !oneOf(e.Protocol, ProtocolTCP, ProtocolUDP, ProtocolREST):
		v.problem(path+".protocol", "unknown protocol '%s' (expected tcp, udp or rest)", printable(e.Protocol))
	case e.Protocol == ProtocolREST:
		v.rest(path, e)
	default:
		v.transport(path, e)
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
	if err := checkHost(e.Host); err != nil {
		v.problem(at, "%v", err)
		return
	}
	host := canonicalHost(e.Host)
	addr, literal := hostAddr(host)
	switch {
	case literal && addr.Zone() != "":
		v.problem(at, "address %s must not have a zone", e.Host)
	case literal && e.Protocol == ProtocolTCP:
		v.problem(at, "protocol tcp endpoint '%s' must use a DNS hostname, not an IP literal; remove protocol", e.Host)
	case literal && blocked(plain(addr)) != "":
		v.warn(at, "%s is never reachable: it is always blocked (%s)", e.Host, blocked(plain(addr)))
	case metadataHost(host):
		v.warn(at, "%s is never reachable: cloud metadata services are always blocked", e.Host)
	}
}

func (v *validator) ports(path string, e *Endpoint) {
	switch {
	case e.Port != 0 && len(e.Ports) > 0:
		v.problem(path, "port and ports are mutually exclusive; use ports for multiple ports")
	case len(e.PortList()) == 0:
		v.problem(path, "endpoint '%s' must declare at least one port", printable(e.Host))
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
	case e.DenyRules != nil:
		v.problem(path+".deny_rules", "deny_rules require protocol (L7 inspection must be enabled)")
	case e.Rules != nil:
		v.problem(path+".rules", "rules require protocol: rest (L7 inspection must be enabled)")
	case e.Access == AccessReadOnly || e.Access == AccessReadWrite,
		e.Access != "" && e.Protocol != "":
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

// rest checks an endpoint that is decided per request.
func (v *validator) rest(path string, e *Endpoint) {
	switch {
	case e.Rules != nil && e.Access != "":
		v.problem(path, "rules and access are mutually exclusive")
	case e.Rules != nil && len(e.Rules) == 0:
		v.problem(path+".rules", "rules is an empty list: add rules, or use access")
	case e.Rules == nil && e.Access == "" && e.DenyRules != nil:
		v.problem(path, "deny_rules require rules or access to define the base allow set")
	case e.Rules == nil && e.Access == "":
		v.problem(path, "protocol requires rules or access to define allowed traffic")
	}
	if e.DenyRules != nil && len(e.DenyRules) == 0 {
		v.problem(path+".deny_rules", "deny_rules is an empty list: remove it")
	}
	if e.TLS == TLSSkip {
		v.problem(path+".tls", "tls: skip cannot be combined with protocol: rest; requests within spliced TLS cannot be decided")
	}
	if e.Enforcement == "" && e.Access != AccessFull {
		v.warn(path, "enforcement is audit by default: what the rules deny is only logged; say enforcement: enforce")
	}
	if e.Path != "" && v.plainText(path+".path", e.Path, maxPathBytes) {
		if !strings.HasPrefix(e.Path, "/") && e.Path != "**" {
			v.problem(path+".path", "path must start with '/' or be '**'")
		} else if _, err := compileEndpointPath(e.Path); err != nil {
			v.problem(path+".path", "%v", err)
		}
	}
	for i := range e.Rules {
		v.request(element(path+".rules", i)+".allow", &e.Rules[i].Allow)
	}
	for i := range e.DenyRules {
		v.request(element(path+".deny_rules", i), &e.DenyRules[i])
	}
}

func (v *validator) request(path string, m *L7Match) {
	if m.Method == "" {
		v.problem(path+".method", "is required: name an HTTP method, or '*' for any")
	} else if m.Method != "*" && strings.Trim(m.Method, methodChars) != "" {
		v.problem(path+".method", "%s is not an HTTP method", printable(m.Method))
	}
	v.requestPath(path+".path", m.Path)
	for _, key := range slices.Sorted(maps.Keys(m.Query)) {
		at := child(path+".query", key)
		v.plainText(at, key, maxNameBytes)
		globs := m.Query[key].Any
		if len(globs) == 0 {
			v.problem(at, "must be a glob or {any: [globs]}, with at least one")
		}
		for _, pattern := range globs {
			if v.plainText(at, pattern, maxGlob) {
				v.glob(at, pattern, '.')
			}
		}
	}
}

// methodChars are what registered methods are made of (RFC 9110 section 9.1
// allows more, which nothing uses).
const methodChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"

func (v *validator) requestPath(path, pattern string) {
	switch {
	case pattern == "":
		v.problem(path, "is required: start it with '/', or use '**' for any")
	case !v.plainText(path, pattern, maxPathBytes):
	case !strings.HasPrefix(pattern, "/") && pattern != "**":
		v.problem(path, "path must start with '/' or be '**'")
	case strings.Contains(pattern, "?"):
		v.glob(path, pattern, '/')
		v.warn(path, "'?' stands for one character: the query is not part of the path, use query for it")
	case isGlob(pattern):
		v.glob(path, pattern, '/')
	default:
		if canonical, _, err := CanonicalTarget(pattern, true); err != nil {
			v.warn(path, "never matches: %v", err)
		} else if canonical != pattern {
			v.warn(path, "never matches: paths are compared in canonical form, write %s", canonical)
		}
	}
}
