// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"path/filepath"
	"slices"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// onlyAttempt lets one program reach one address.
const onlyAttempt = `version: 1
network_policies:
  echo:
    endpoints: [{host: 45.64.45.18, port: 7}]
    binaries: [{path: /usr/bin/attempt}]
`

// A connection stays that of the program that opened it when it is passed to one
// that may open none (docs/security.md, known limits). A new one of the receiver's
// does not become the sender's, nor one on a socket that both have.
func TestPassedSockets(t *testing.T) {
	addr := fakenet.Addrs(fakenet.EchoHost)[0].String() + ":7"
	for state, want := range map[string]map[string][]string{
		"connected": {
			enforcing:  {"tcp echo.example 10"},
			permissive: {"tcp echo.example 10", "tcp echo.example 3"},
			unboxed:    {"tcp echo.example 10", "tcp echo.example 3"},
		},
		"unconnected": {
			enforcing:  nil,
			permissive: {"tcp echo.example 3"},
			unboxed:    {"tcp echo.example 6", "tcp echo.example 3"},
		},
	} {
		attempt := func(b *box) {
			const other = "/usr/bin/other"
			node.Must(b.World.T, node.CopyFile(filepath.Join(b.Rootfs(), attemptPath), filepath.Join(b.Rootfs(), other)))
			b.Start()
			o := b.Exec(other, "receive-socket", attemptPath, addr, state)
			if got := b.heard(); !slices.Equal(got, want[b.mode]) {
				b.World.T.Errorf("%s: the internet received %q, want %q\n%s", state, got, want[b.mode], o)
			}
		}
		t.Run(state, func(t *testing.T) {
			inEveryBox(t, onlyAttempt, attempt)
			withoutBox(t, attempt)
		})
	}
}
