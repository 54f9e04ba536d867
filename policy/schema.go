// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
)

// Values of the enumerated fields of the policy language.
const (
	CompatibilityBestEffort      = "best_effort"
	CompatibilityHardRequirement = "hard_requirement"

	ProtocolTCP       = "tcp"       // L4, like an absent protocol
	ProtocolUDP       = "udp"       // L4, UDP only; this project's addition to OpenShell's language
	ProtocolREST      = "rest"      // HTTP, decided per request
	ProtocolWebSocket = "websocket" // REST, and the client's text messages after the upgrade
	ProtocolGraphQL   = "graphql"   // decided per operation, over HTTP or WebSocket
	ProtocolJSONRPC   = "json-rpc"  // JSON-RPC 2.0 over HTTP, decided per call
	ProtocolMCP       = "mcp"       // the Model Context Protocol, decided per call and tool
	ProtocolSQL       = "sql"       // L4: statements are not looked at

	TLSSkip = "skip" // splice TLS untouched

	EnforcementEnforce = "enforce"
	EnforcementAudit   = "audit" // the default

	AccessReadOnly  = "read-only"
	AccessReadWrite = "read-write"
	AccessFull      = "full"

	PersistedQueriesDeny            = "deny" // the default
	PersistedQueriesAllowRegistered = "allow_registered"
)

// Policy is what a workload may do. The zero value allows nothing on the
// network and says nothing about files.
type Policy struct {
	// Version is the schema's version, always 1.
	Version int `yaml:"version" json:"version"`
	// Filesystem is nil when the section is absent; see FilesystemRules.
	Filesystem *Filesystem `yaml:"filesystem_policy,omitempty" json:"filesystem_policy,omitempty"`
	Landlock   *Landlock   `yaml:"landlock,omitempty" json:"landlock,omitempty"`
	Process    *Process    `yaml:"process,omitempty" json:"process,omitempty"`
	// Network maps a rule's key, which decisions name, to the rule.
	Network map[string]*Rule `yaml:"network_policies,omitempty" json:"network_policies,omitempty"`
}

// Filesystem lists absolute paths. A directory stands for its whole subtree.
type Filesystem struct {
	// IncludeWorkdir adds the process's working directory to ReadWrite.
	IncludeWorkdir bool     `yaml:"include_workdir,omitempty" json:"include_workdir,omitempty"`
	ReadOnly       []string `yaml:"read_only,omitempty" json:"read_only,omitempty"`
	ReadWrite      []string `yaml:"read_write,omitempty" json:"read_write,omitempty"`
}

// Landlock says what happens where the kernel cannot confine files.
type Landlock struct {
	// Compatibility is "best_effort" (also when empty) or "hard_requirement".
	Compatibility string `yaml:"compatibility,omitempty" json:"compatibility,omitempty"`
}

// Process names the identity OpenShell would run the workload as.
type Process struct {
	RunAsUser  string `yaml:"run_as_user,omitempty" json:"run_as_user,omitempty"`
	RunAsGroup string `yaml:"run_as_group,omitempty" json:"run_as_group,omitempty"`
}

// Rule allows each of its binaries to reach each of its endpoints.
//
// Lists of which an empty one means something else than an absent one are
// written to JSON even if they are empty (omitzero).
type Rule struct {
	// Name is for people; the rule's key in Policy.Network when empty.
	Name      string     `yaml:"name,omitempty" json:"name,omitempty"`
	Endpoints []Endpoint `yaml:"endpoints,omitempty" json:"endpoints,omitzero"`
	// Binaries is nil where any binary is meant. It is never empty otherwise.
	Binaries []Binary `yaml:"binaries,omitempty" json:"binaries,omitzero"`
	// Learned marks a rule that came from an approved proposal. Its exact
	// hosts do not earn the trust to reach private addresses.
	Learned bool `yaml:"-" json:"-"`
}

// Binary is a program, by the absolute path of its executable: exact, or a
// glob in which `*` stays within a path component and `**` crosses.
type Binary struct {
	Path string `yaml:"path" json:"path"`
}

// Endpoint is a destination and what may be said to it.
type Endpoint struct {
	// Host is a DNS name, an IP address, or a name with `*` (one label) and
	// `**` (one or more labels). Empty means any host within AllowedIPs.
	Host string `yaml:"host,omitempty" json:"host,omitempty"`
	// Path selects this endpoint among several for one host and port. In it
	// `*` crosses `/`.
	Path string `yaml:"path,omitempty" json:"path,omitempty"`
	// Port and Ports are alternatives; see PortList.
	Port        uint16   `yaml:"port,omitempty" json:"port,omitempty"`
	Ports       []uint16 `yaml:"ports,omitempty,flow" json:"ports,omitempty"`
	Protocol    string   `yaml:"protocol,omitempty" json:"protocol,omitempty"`
	TLS         string   `yaml:"tls,omitempty" json:"tls,omitempty"`
	Enforcement string   `yaml:"enforcement,omitempty" json:"enforcement,omitempty"`
	// Access is a preset, the alternative to Rules.
	Access    string    `yaml:"access,omitempty" json:"access,omitempty"`
	Rules     []L7Allow `yaml:"rules,omitempty" json:"rules,omitzero"`
	DenyRules []L7Match `yaml:"deny_rules,omitempty" json:"deny_rules,omitzero"`
	// AllowedIPs holds CIDR prefixes or addresses. When it is not empty, the
	// endpoint's addresses must lie within it, private ones included.
	AllowedIPs        []string `yaml:"allowed_ips,omitempty" json:"allowed_ips,omitempty"`
	AllowEncodedSlash bool     `yaml:"allow_encoded_slash,omitempty" json:"allow_encoded_slash,omitempty"`

	// PersistedQueries says whether a GraphQL operation that is named by a hash
	// or an id only may be one of GraphQLPersistedQueries, which is keyed by it.
	PersistedQueries        string                      `yaml:"persisted_queries,omitempty" json:"persisted_queries,omitempty"`
	GraphQLPersistedQueries map[string]GraphQLOperation `yaml:"graphql_persisted_queries,omitempty" json:"graphql_persisted_queries,omitempty"`
	// GraphQLMaxBodyBytes is the longest body that is inspected; 0: 65536. A
	// longer one is refused.
	GraphQLMaxBodyBytes uint32          `yaml:"graphql_max_body_bytes,omitempty" json:"graphql_max_body_bytes,omitempty"`
	JSONRPC             *JSONRPCOptions `yaml:"json_rpc,omitempty" json:"json_rpc,omitempty"`
	MCP                 *MCPOptions     `yaml:"mcp,omitempty" json:"mcp,omitempty"`
}

// GraphQLOperation describes an operation that the server stores.
type GraphQLOperation struct {
	OperationType string   `yaml:"operation_type" json:"operation_type"`
	OperationName string   `yaml:"operation_name,omitempty" json:"operation_name,omitempty"`
	Fields        []string `yaml:"fields,omitempty,flow" json:"fields,omitempty"`
}

// JSONRPCOptions are for protocol json-rpc.
type JSONRPCOptions struct {
	// MaxBodyBytes is the longest body that is inspected; 0: 65536.
	MaxBodyBytes uint32 `yaml:"max_body_bytes,omitempty" json:"max_body_bytes,omitempty"`
}

// MCPOptions are for protocol mcp.
type MCPOptions struct {
	// MaxBodyBytes is the longest body that is inspected; 0: 65536.
	MaxBodyBytes uint32 `yaml:"max_body_bytes,omitempty" json:"max_body_bytes,omitempty"`
	// StrictToolNames, which nil means too, refuses tools whose name is not
	// made of 1 to 128 letters, digits, '_', '.' and '-'.
	StrictToolNames *bool `yaml:"strict_tool_names,omitempty" json:"strict_tool_names,omitempty"`
	// AllowAllKnownMCPMethods allows the methods that MCP itself defines for
	// clients; rules that name tools still restrict tools/call.
	AllowAllKnownMCPMethods bool `yaml:"allow_all_known_mcp_methods,omitempty" json:"allow_all_known_mcp_methods,omitempty"`
}

// L7Allow is one entry of an endpoint's rules.
type L7Allow struct {
	Allow L7Match `yaml:"allow" json:"allow"`
}

// L7Match describes requests. Which fields there are is the protocol's to say:
//
//   - rest, websocket: Method, Path and Query; rest also Upgrade, where it allows
//   - graphql, and websocket for GraphQL over it: OperationType, OperationName
//     and Fields
//   - json-rpc: Method
//   - mcp: Method, and Tool or its other form Params["name"]
//   - sql: Command
type L7Match struct {
	// Method is an HTTP method (GET covers HEAD too), WEBSOCKET_TEXT for a
	// client's text messages, or `*`; or else a JSON-RPC method.
	Method string `yaml:"method,omitempty" json:"method,omitempty"`
	// Path is a glob over the path, in the spelling of Target: `*` stops at `/`, `**` crosses.
	Path string `yaml:"path,omitempty" json:"path,omitempty"`
	// Query constrains the named, decoded query parameters.
	Query map[string]Matcher `yaml:"query,omitempty" json:"query,omitempty"`
	// Command is an SQL command or `*`.
	Command string `yaml:"command,omitempty" json:"command,omitempty"`
	// OperationType is query, mutation, subscription or `*`.
	OperationType string `yaml:"operation_type,omitempty" json:"operation_type,omitempty"`
	// OperationName is a glob; empty: any name, or none.
	OperationName string `yaml:"operation_name,omitempty" json:"operation_name,omitempty"`
	// Fields are globs over the operation's root fields. To allow, one of them
	// has to match each field; to deny, any field. Nil: whatever the fields.
	Fields []string `yaml:"fields,omitempty,flow" json:"fields,omitzero"`
	// Tool matches the tool's name in MCP's tools/call.
	Tool   Matcher            `yaml:"tool,omitempty" json:"tool,omitzero"`
	Params map[string]Matcher `yaml:"params,omitempty" json:"params,omitempty"`
	// Upgrade names the protocols, other than WebSocket, that an allowed request may ask to switch to (RFC 9110
	// section 7.8). OpenShell does not have it.
	Upgrade []string `yaml:"upgrade,omitempty,flow" json:"upgrade,omitempty"`
}

// Matcher is a set of globs, one of which must match. In YAML and JSON it is a
// string, or {any: [...]}; {glob: ...} is read as well.
type Matcher struct {
	Any []string
}

// matcherObject is a Matcher's long form.
type matcherObject struct {
	Any  []string `yaml:"any,omitempty,flow" json:"any,omitempty"`
	Glob string   `yaml:"-" json:"glob,omitempty"`
}

// MarshalYAML writes a single glob as a plain string.
func (m Matcher) MarshalYAML() (any, error) {
	return m.encoded(), nil
}

// MarshalJSON writes a single glob as a plain string.
func (m Matcher) MarshalJSON() ([]byte, error) {
	return json.Marshal(m.encoded())
}

func (m Matcher) encoded() any {
	if len(m.Any) == 1 {
		return m.Any[0]
	}
	return matcherObject{Any: m.Any}
}

// UnmarshalJSON reads all three forms.
func (m *Matcher) UnmarshalJSON(data []byte) error {
	var glob string
	if json.Unmarshal(data, &glob) == nil {
		m.Any = []string{glob}
		return nil
	}
	var object matcherObject
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	switch {
	case object.Glob != "" && len(object.Any) == 0:
		m.Any = []string{object.Glob}
	case object.Glob == "" && len(object.Any) > 0:
		m.Any = object.Any
	default:
		return errors.New(`matcher must be a string, {"any": [...]} or {"glob": "..."}`)
	}
	return nil
}

// IsZero reports whether there is no matcher.
func (m Matcher) IsZero() bool { return m.Any == nil }

// PortList returns the endpoint's ports, whichever way they were written.
func (e *Endpoint) PortList() []uint16 {
	if len(e.Ports) > 0 {
		return e.Ports
	}
	if e.Port != 0 {
		return []uint16{e.Port}
	}
	return nil
}

// FilesystemRules returns the filesystem section, or what an absent one means:
// the working directory and nothing else.
func (p *Policy) FilesystemRules() Filesystem {
	if p.Filesystem == nil {
		return Filesystem{IncludeWorkdir: true}
	}
	return *p.Filesystem
}

// RequiresLandlock reports whether files must not stay unconfined.
func (p *Policy) RequiresLandlock() bool {
	return p.Landlock != nil && p.Landlock.Compatibility == CompatibilityHardRequirement
}
