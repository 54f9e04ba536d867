// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v4"
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
	}
	d.options(to, fields)
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
