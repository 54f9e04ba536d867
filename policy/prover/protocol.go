// SPDX-License-Identifier: Apache-2.0

package prover

import "openshell.ai/openshell/policy"

// comparison is how a protocol's endpoints are compared. Each may be nil: what is left has to
// be the same in both policies.
type comparison struct {
	// take moves what an entry of rules says from special to what is compared.
	take func(m *requestPattern) error
	// sameReading reports whether endpoints with the same options read what is sent alike.
	sameReading func(own, other *policy.Endpoint) bool
	// exceeds says why an endpoint allows what one of the maximum does not, though the
	// entries of rules are within the maximum's; "": it does not.
	exceeds func(own, maximum *policy.Endpoint) string
}

var comparisons = map[string]comparison{
	policy.ProtocolREST:      {take: (*requestPattern).takeRequest},
	policy.ProtocolWebSocket: {take: takeWebSocket, sameReading: sameMessages},
	policy.ProtocolGraphQL:   {take: (*requestPattern).takeOperation},
	policy.ProtocolJSONRPC:   {take: (*requestPattern).takeCall},
	policy.ProtocolMCP:       {take: takeTool, exceeds: toolsExceed},
}

// require asks that a value matches one of the globs.
func (m *requestPattern) require(what string, globs ...string) error {
	for _, glob := range globs {
		value, err := globPattern(glob, '.')
		if err != nil {
			return err
		}
		m.values[what] = append(m.values[what], value)
	}
	return nil
}
