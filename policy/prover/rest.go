// SPDX-License-Identifier: Apache-2.0

package prover

import "cmp"

// takeRequest takes what is said of method, path and query.
func (m *requestPattern) takeRequest() (err error) {
	m.method = cmp.Or(m.source.Method, "*")
	m.special.Method, m.special.Path, m.special.Query, m.special.Upgrade = "", "", nil, nil
	if m.source.Path != "" {
		if m.path, err = globPattern(m.source.Path, '/'); err != nil {
			return err
		}
	}
	for key, matcher := range m.source.Query {
		if err := m.require("query "+key, matcher.Any...); err != nil {
			return err
		}
	}
	return nil
}
