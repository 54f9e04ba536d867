// SPDX-License-Identifier: Apache-2.0

package prover

// takeCall takes what is said of the method of JSON-RPC calls.
func (m *requestPattern) takeCall() error {
	m.special.Method = ""
	if m.source.Method == "*" {
		return nil
	}
	return m.require("method", m.source.Method)
}
