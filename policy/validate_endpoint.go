// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
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
	v.options(path, e)
	p := ProtocolOf(e.Protocol)
	if p == nil {
		var names []string
		for _, known := range protocols {
			names = append(names, known.Name)
		}
		last := len(names) - 1
		v.problem(path+".protocol", "unknown protocol '%s' (expected %s, or %s)", printable.Text(e.Protocol), strings.Join(names[:last], ", "), names[last])
		return
	}
	if p.Rank > 0 {
		v.inspected(path, e)
	}
	if p.check != nil {
		p.check(v, path, e)
	}
}

const noHost = "endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"

func (v *validator) host(path string, e *Endpoint) {
	at := path + ".host"
	if e.Host == "" {
		if len(e.AllowedIPs) == 0 {
			v.problem(at, noHost)
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

// inspected checks an endpoint that is decided per request.
func (v *validator) inspected(path string, e *Endpoint) {
	v.allowSet(path, e)
	if e.TLS == TLSSkip {
		v.problem(path+".tls", "tls: skip cannot be combined with protocol: %s; requests within spliced TLS cannot be decided", e.Protocol)
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
	p := e.protocol()
	switch {
	case e.Access != "" && p.noPresets != "":
		v.problem(path+".access", "%s", p.noPresets)
	case e.Rules != nil && e.Access != "":
		v.problem(path+".access", "rules and access are mutually exclusive")
	case e.Rules != nil && len(e.Rules) == 0:
		v.problem(path+".rules", "rules is an empty list: add rules, or use access")
	case e.Rules == nil && e.Access == "":
		missing := p.noRules
		if missing == nil {
			missing = denyWithoutBase
		}
		if field, reason := missing(e); reason != "" {
			v.problem(path+"."+field, "%s", reason)
		}
	}
	if e.DenyRules != nil && len(e.DenyRules) == 0 {
		v.problem(path+".deny_rules", "deny_rules is an empty list: remove it")
	}
}

// denyWithoutBase says what is missing from an endpoint without rules and access.
func denyWithoutBase(e *Endpoint) (field, reason string) {
	if e.DenyRules != nil {
		return "deny_rules", "deny_rules require rules or access to define the base allow set"
	}
	return "rules", "protocol requires rules or access to define allowed traffic"
}

// options checks the fields of single protocols. One of another protocol that could only
// narrow or bound is warned of.
func (v *validator) options(path string, e *Endpoint) {
	own := e.protocol()
	var names []string // of all
	given := false
	for _, p := range protocols {
		some := false
		for _, o := range p.options {
			names = append(names, o.name)
			some = some || o.given(e)
		}
		if p.checkOptions != nil {
			p.checkOptions(v, path, e)
		}
		if some && p != own && !own.transport {
			p.unused(v, path, e)
		}
		given = given || some
	}
	if given && own.transport {
		last := len(names) - 1
		v.problem(path, "protocol %s does not support L7-only fields: remove %s and %s", e.Protocol, strings.Join(names[:last], ", "), names[last])
	}
}
