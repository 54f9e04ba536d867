// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// QUIC, whose requests nobody sees, is begun with no datagram of a socket's that no
// rule allows, be it the first or not.
func TestQUICBehindOtherDatagrams(t *testing.T) {
	attempt := func(b *box) {
		b.Start()
		for name, initial := range map[string]string{
			"version 1":          "c30000000108+1200",
			"version 1, greased": "830000000108+1250",
			"version 2":          "d36b3343cf08+1300",
			"a draft":            "c3ff00001d08+1200",
			"another version":    "c35a6a070708+1200",
		} {
			for _, before := range [][]string{nil, {"78"}, {"78", "7979"}} {
				b.World.Net.Reset()
				o := b.Exec(append(append([]string{attemptPath, "datagrams", fakenet.EchoHost + ":443"}, before...), initial)...)
				quic, others := 0, 0
				for _, r := range b.World.Net.Requests() {
					if r.Body > 100 {
						quic++
					} else {
						others++
					}
				}
				if (quic > 0) != (b.mode == unboxed) || (others > 0) != (len(before) > 0 && !b.enforced()) {
					b.World.T.Errorf("%s behind %d: %d datagrams of QUIC arrive, %d others\n%s", name, len(before), quic, others, o)
				}
			}
		}
		if b.mode == permissive {
			b.logged(fakenet.EchoHost, "QUIC hides its requests")
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}
