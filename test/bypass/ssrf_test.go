// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// No address that leads inside is reached, however it is written, by itself or
// behind a name that the policy allows.
func TestAddressesInside(t *testing.T) {
	policy := "version: 1\nnetwork_policies:\n  all:\n    endpoints: [{host: \"*.ranges.example\", port: 80}]\n" +
		"    binaries: [{path: /usr/bin/client}]\n"
	attempt := func(b *box) {
		b.Start()
		var commands [][]string
		var all []string
		for i, addr := range fakenet.BlockedAddrs() {
			for way, host := range map[string]string{"address": addr.String(), "name": fmt.Sprintf("%d.%s", i, fakenet.RangesHost)} {
				path := "/" + way + "/" + addr.String()
				all = append(all, path)
				commands = append(commands, []string{"get", "http://" + net.JoinHostPort(host, "80") + path})
			}
		}
		results := b.Sequence(commands...)
		var reached []string
		for _, r := range b.World.Net.Requests() {
			reached = append(reached, r.Target)
		}
		slices.Sort(all)
		slices.Sort(reached)
		if b.mode != unboxed && len(reached) > 0 || b.mode == unboxed && !slices.Equal(reached, all) {
			b.World.T.Errorf("reached %q: %+v", reached, results)
		}
	}
	inEveryBox(t, policy, attempt)
	withoutBox(t, attempt)
}
