// SPDX-License-Identifier: Apache-2.0

package policy

// sql is for databases. OpenShell does not parse SQL either: the connection is allowed as a
// whole.
var sql = Protocol{
	Name: ProtocolSQL,
	fields: []matchField{{
		name:    "command",
		present: func(m *L7Match) bool { return m.Command != "" },
		refused: "command is only valid for protocol sql, not %s",
		decode:  func(d *decoder, to *L7Match) field { return d.text(&to.Command) },
		words:   func(m *L7Match) string { return m.Command },
	}},
	presets: restPresets,
	check: func(v *validator, path string, e *Endpoint) {
		v.allowSet(path, e)
		if e.Enforcement == EnforcementEnforce {
			v.problem(path+".enforcement", "SQL enforcement requires full SQL parsing (not available). Use enforcement: audit.")
		}
		if e.Path != "" {
			v.problem(path+".path", "path does not apply to protocol sql: remove it")
		}
		v.warn(path, "protocol sql is not inspected: every connection is allowed, whatever the commands")
		v.matches(path, e)
	},
	checkMatch: func(v *validator, path string, _ *Endpoint, m *L7Match) {
		if m.Command == "" {
			v.problem(path+".command", "is required: name an SQL command, or '*' for any")
		}
		v.plainText(path+".command", m.Command, maxNameBytes)
	},
}
