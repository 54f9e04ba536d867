// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v4"
	"openshell.ai/openshell/internal/printable"
)

func (d *decoder) endpoint(to *Endpoint) field {
	fields := map[string]field{
		"host": d.text(&to.Host),
		"path": d.text(&to.Path),
		"port": d.port(&to.Port),
		"ports": func(n *yaml.Node, path string) {
			to.Ports = list(d, n, path, d.port)
			switch {
			case to.Ports == nil:
				to.Ports = []uint16{1} // some port
			case len(to.Ports) == 0:
				to.Ports = nil
			}
		},
		"protocol":            d.text(&to.Protocol),
		"tls":                 d.tls(&to.TLS),
		"enforcement":         d.text(&to.Enforcement),
		"access":              d.text(&to.Access),
		"rules":               func(n *yaml.Node, path string) { to.Rules = list(d, n, path, d.allow) },
		"deny_rules":          func(n *yaml.Node, path string) { to.DenyRules = list(d, n, path, d.match) },
		"allowed_ips":         d.texts(&to.AllowedIPs),
		"allow_encoded_slash": d.boolean(&to.AllowEncodedSlash),

		"persisted_queries":         d.text(&to.PersistedQueries),
		"graphql_persisted_queries": d.persistedQueries(&to.GraphQLPersistedQueries),
		"graphql_max_body_bytes":    d.size(&to.GraphQLMaxBodyBytes),
		"json_rpc":                  d.jsonRPC(&to.JSONRPC),
		"mcp":                       d.mcp(&to.MCP),
	}
	for _, name := range unsupportedEndpointFields {
		fields[name] = d.unsupported(name)
	}
	return func(n *yaml.Node, path string) { d.mapping(n, path, fields) }
}

// unsupportedEndpointFields are OpenShell's for credentials, which are not
// implemented yet.
var unsupportedEndpointFields = []string{
	"websocket_credential_rewrite", "request_body_credential_rewrite", "allow_uninspected_credentials",
	"credential_signing", "signing_service", "signing_region", "credential_binding",
}

// tls drops the deprecated values, which mean the default.
func (d *decoder) tls(to *string) field {
	return func(n *yaml.Node, path string) {
		d.text(to)(n, path)
		if *to == "terminate" || *to == "passthrough" {
			d.warn(n, path, "%q is deprecated and means the default: remove it", *to)
			*to = ""
		}
	}
}

func (d *decoder) persistedQueries(to *map[string]GraphQLOperation) field {
	return func(n *yaml.Node, path string) {
		operations := map[string]GraphQLOperation{}
		d.entries(n, path, func(key, value *yaml.Node, at string) {
			var operation GraphQLOperation
			d.mapping(value, at, map[string]field{
				"operation_type": d.text(&operation.OperationType),
				"operation_name": d.text(&operation.OperationName),
				"fields":         d.texts(&operation.Fields),
			})
			operations[key.Value] = operation
		})
		if len(operations) > 0 {
			*to = operations
		}
	}
}

func (d *decoder) jsonRPC(to **JSONRPCOptions) field {
	return func(n *yaml.Node, path string) {
		var options JSONRPCOptions
		d.mapping(n, path, map[string]field{"max_body_bytes": d.size(&options.MaxBodyBytes)})
		if options != (JSONRPCOptions{}) {
			*to = &options
		}
	}
}

func (d *decoder) mcp(to **MCPOptions) field {
	return func(n *yaml.Node, path string) {
		var options MCPOptions
		d.mapping(n, path, map[string]field{
			"max_body_bytes": d.size(&options.MaxBodyBytes),
			"strict_tool_names": func(n *yaml.Node, path string) {
				options.StrictToolNames = new(bool)
				d.boolean(options.StrictToolNames)(n, path)
			},
			"allow_all_known_mcp_methods": d.boolean(&options.AllowAllKnownMCPMethods),
			"versions":                    d.unsupported("versions"),
		})
		if options != (MCPOptions{}) {
			*to = &options
		}
	}
}

func (d *decoder) allow(to *L7Allow) field {
	return func(n *yaml.Node, path string) {
		found := false
		d.mapping(n, path, map[string]field{"allow": func(n *yaml.Node, path string) {
			found = true
			d.match(&to.Allow)(n, path)
		}})
		if !found {
			d.problem(n, path, "has no allow clause: write - allow: {method: GET, path: /...}")
		}
	}
}

func (d *decoder) match(to *L7Match) field {
	fields := map[string]field{
		"method":         d.text(&to.Method),
		"path":           d.text(&to.Path),
		"query":          d.matchers(&to.Query),
		"command":        d.text(&to.Command),
		"operation_type": d.text(&to.OperationType),
		"operation_name": d.text(&to.OperationName),
		"fields":         func(n *yaml.Node, path string) { to.Fields = list(d, n, path, d.text) },
		"tool":           func(n *yaml.Node, path string) { to.Tool = d.matcher(n, path) },
		"params": func(n *yaml.Node, path string) {
			params := map[string]Matcher{}
			if d.params(n, path, "", params); len(params) > 0 {
				to.Params = params
			}
		},
	}
	return func(n *yaml.Node, path string) { d.mapping(n, path, fields) }
}

func (d *decoder) matchers(to *map[string]Matcher) field {
	return func(n *yaml.Node, path string) {
		matchers := map[string]Matcher{}
		d.entries(n, path, func(key, value *yaml.Node, at string) {
			matchers[key.Value] = d.matcher(value, at)
		})
		if len(matchers) > 0 {
			*to = matchers
		}
	}
}

// params flattens nested objects to dotted keys.
func (d *decoder) params(n *yaml.Node, path, prefix string, to map[string]Matcher) {
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		name := prefix + key.Value
		switch _, taken := to[name]; {
		case isNested(value):
			d.params(value, at, name+".", to)
		case taken:
			d.problem(key, at, "%s is given twice", printable.Text(name))
		default:
			to[name] = d.matcher(value, at)
		}
	})
}

// isNested tells an object of params from a matcher's long form.
func isNested(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; key == "any" || key == "glob" {
			return false
		}
	}
	return true
}

func (d *decoder) matcher(n *yaml.Node, path string) Matcher {
	target := n
	if n.Kind == yaml.AliasNode {
		target = n.Alias
	}
	if target.Kind != yaml.MappingNode {
		var glob string
		d.text(&glob)(n, path)
		return Matcher{Any: []string{glob}}
	}
	m := Matcher{Any: []string{}}
	var glob string
	keys := map[string]field{
		"any":  func(n *yaml.Node, path string) { m.Any = list(d, n, path, d.text) },
		"glob": d.text(&glob),
	}
	d.mapping(n, path, keys)
	switch {
	case glob != "" && len(m.Any) > 0:
		d.problem(n, path, "any and glob are mutually exclusive")
	case glob != "":
		m.Any = []string{glob}
	}
	return m
}
