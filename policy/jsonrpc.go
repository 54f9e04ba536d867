// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v4"
	"openshell.ai/openshell/internal/wildcard"
)

// jsonRPC is JSON-RPC 2.0 over HTTP, decided per call.
var jsonRPC = Protocol{
	Name:      ProtocolJSONRPC,
	Rank:      3,
	Content:   true,
	Malformed: "invalid_jsonrpc_request",
	options: []option{{
		name:   "json_rpc",
		given:  func(e *Endpoint) bool { return e.JSONRPC != nil },
		decode: func(d *decoder, to *Endpoint) field { return d.jsonRPC(&to.JSONRPC) },
	}},
	alsoOf:    []string{"method"},
	noPresets: `protocol json-rpc does not support access presets; use explicit rules with allow.method such as "*"`,
	noRules: func(e *Endpoint) (field, reason string) {
		if e.DenyRules != nil {
			return denyWithoutBase(e)
		}
		return "rules", "protocol json-rpc requires explicit rules with allow.method"
	},
	maxBody: func(e *Endpoint) uint32 {
		if e.JSONRPC == nil {
			return 0
		}
		return e.JSONRPC.MaxBodyBytes
	},
	traits: func(e *Endpoint) []trait { return []trait{{"max_body_bytes", e.MaxBody()}} },
	unused: func(v *validator, path string, _ *Endpoint) {
		v.warn(path+".json_rpc", "is ignored unless protocol is json-rpc")
	},
	checkMatch: func(v *validator, path string, _ *Endpoint, m *L7Match) { v.rpcMethod(path+".method", m.Method) },
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

// rpcMethod checks a method of JSON-RPC, which is exact or a lone `*`.
func (v *validator) rpcMethod(path, method string) {
	switch {
	case method == "":
		v.problem(path, "required for json-rpc L7 rules")
	case !v.plainText(path, method, maxNameBytes):
	case method != "*" && wildcard.IsGlob(method):
		v.problem(path, `generic JSON-RPC method rules do not support glob or wildcard matchers; use "*" to allow all methods or an exact method name`)
	}
}
