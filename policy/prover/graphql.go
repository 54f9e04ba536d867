// SPDX-License-Identifier: Apache-2.0

package prover

import "strings"

// takeOperation takes what is said of GraphQL operations.
func (m *requestPattern) takeOperation() error {
	source := m.source
	m.special.OperationType, m.special.OperationName, m.special.Fields = "", "", nil
	if source.OperationType != "" && source.OperationType != "*" {
		if err := m.require("operation_type", strings.ToLower(source.OperationType)); err != nil {
			return err
		}
	}
	if source.OperationName != "" {
		if err := m.require("operation_name", source.OperationName); err != nil {
			return err
		}
	}
	return m.require("fields", source.Fields...)
}
