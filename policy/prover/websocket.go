// SPDX-License-Identifier: Apache-2.0

package prover

import "openshell.ai/openshell/policy"

func takeWebSocket(m *requestPattern) error {
	if err := m.takeRequest(); err != nil {
		return err
	}
	return m.takeOperation()
}

func sameMessages(own, other *policy.Endpoint) bool {
	return own.HasGraphQLPolicy() == other.HasGraphQLPolicy()
}
