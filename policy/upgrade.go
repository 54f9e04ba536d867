// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/net/http/httpguts"

	"openshell.ai/openshell/internal/printable"
)

// upgradeField is what rest's rules say of requests that ask to switch to another protocol (RFC 9110 section 7.8).
var upgradeField = matchField{
	name:    "upgrade",
	present: func(m *L7Match) bool { return m.Upgrade != nil },
	refused: "upgrade is only valid for protocol rest, not %s",
	decode: func(d *decoder, to *L7Match) field {
		return func(n *yaml.Node, path string) { to.Upgrade = list(d, n, path, d.text) }
	},
}

// upgrade checks the names of protocols, which are tokens, maybe with a version.
func (v *validator) upgrade(path string, names []string) {
	if names != nil && len(names) == 0 {
		v.problem(path, "list must not be empty; omit upgrade to allow none")
	}
	for i, name := range names {
		at := Element(path, i)
		switch {
		case strings.EqualFold(name, "websocket"):
			v.problem(at, "a WebSocket needs no upgrade: a rule for GET opens it")
		case strings.EqualFold(name, "h2c"):
			v.problem(at, "h2c is never passed on: its requests could not be decided")
		case !ValidUpgrade(name):
			v.problem(at, "%s is not a protocol's name, such as tcp or SPDY/3.1", printable.Text(name))
		default:
			v.warn(at, "upgrades to %s are opaque, "+inOpenShell, name)
		}
	}
}

// maxUpgrade bounds a protocol's name, in bytes.
const maxUpgrade = 64

// ValidUpgrade reports whether rules can name a protocol in upgrade.
func ValidUpgrade(name string) bool {
	token, version, versioned := strings.Cut(name, "/")
	return httpguts.ValidHeaderFieldName(token) && (!versioned || httpguts.ValidHeaderFieldName(version)) &&
		len(name) <= maxUpgrade && !strings.EqualFold(name, "websocket") && !strings.EqualFold(name, "h2c")
}

// UpgradesWithin reports whether all protocols that are asked for are among those that may be.
func UpgradesWithin(asked, may []string) bool {
	return !slices.ContainsFunc(asked, func(name string) bool {
		return !slices.ContainsFunc(may, func(one string) bool { return strings.EqualFold(one, name) })
	})
}
