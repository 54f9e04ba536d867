// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// methodWebSocketText stands for a client's text messages in rules.
const MethodWebSocketText = "WEBSOCKET_TEXT"

const MethodToolsCall = "tools/call"

// Inspected reports whether a protocol is decided per request.
func Inspected(protocol string) bool {
	switch protocol {
	case ProtocolREST, ProtocolWebSocket, ProtocolGraphQL, ProtocolJSONRPC, ProtocolMCP:
		return true
	}
	return false
}

// BodyDecides reports whether requests of a protocol are decided by what their
// body says.
func BodyDecides(protocol string) bool {
	return protocol == ProtocolGraphQL || protocol == ProtocolJSONRPC || protocol == ProtocolMCP
}

// authority orders protocols: of several for one path, that which looks at
// most decides. Those that read the content in different ways exclude each other.
var Authority = map[string]int{ProtocolREST: 1, ProtocolWebSocket: 2, ProtocolGraphQL: 3, ProtocolJSONRPC: 3, ProtocolMCP: 3}

// Kind is the way the endpoint names its host.
func (e *Endpoint) Kind() HostKind {
	switch {
	case e.Host == "":
		return Hostless
	case strings.Contains(e.Host, "*"):
		return WildcardHost
	default:
		return ExactHost
	}
}

// Special is what an endpoint says besides what is compared field by field. It
// has to be the same in both policies.
func (e Endpoint) Special() Endpoint {
	e.Host, e.Path, e.Port, e.Ports, e.Protocol, e.TLS, e.Enforcement = "", "", 0, nil, "", "", ""
	e.Access, e.Rules, e.DenyRules, e.AllowedIPs, e.AllowEncodedSlash = "", nil, nil, nil, false
	return e
}

// RequiresLandlock reports whether files must not stay unconfined.
func (p *Policy) RequiresLandlock() bool {
	return p.Landlock != nil && p.Landlock.Compatibility == CompatibilityHardRequirement
}
