// SPDX-License-Identifier: Apache-2.0

package policy

import "openshell.ai/openshell/internal/wildcard"

// Endpoints without a protocol, and with one that only names what carries the connection,
// are decided per connection.
var (
	unnamed = Protocol{check: (*validator).transport}
	tcp     = Protocol{
		Name:         ProtocolTCP,
		transport:    true,
		canonicalize: func(e *Endpoint) { e.Protocol = "" },
		check: func(v *validator, path string, e *Endpoint) {
			_, literal := wildcard.HostAddr(wildcard.CanonicalHost(e.Host))
			switch {
			case e.Host == "" && len(e.AllowedIPs) > 0:
				v.problem(path+".host", noHost)
			case literal:
				v.problem(path+".host", "protocol tcp endpoint '%s' must use a DNS hostname, not an IP literal; remove protocol",
					e.Host)
			}
			v.transport(path, e)
		},
	}
	udp = Protocol{
		Name:      ProtocolUDP,
		transport: true,
		check: func(v *validator, path string, e *Endpoint) {
			if e.TLS != "" {
				v.problem(path+".tls", "tls does not apply to protocol udp: remove it")
			}
			v.transport(path, e)
		},
	}
)

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
	case e.Access != "", e.Enforcement != "":
		v.warn(path, "access and enforcement have no effect without protocol: rest; every connection is allowed")
	}
}
