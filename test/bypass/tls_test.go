// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"slices"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// Behind the address of an allowed host there is another site, on one TLS server of
// Go's. No ClientHello asks it for that site, whatever is before or around it: not
// where the connection is spliced by the policy (endpoints of TCP, tls: skip), nor
// where only permissive mode lets it through.
func TestTheNameInTLSIsTheConnections(t *testing.T) {
	const policy = `version: 1
network_policies:
  tcp:
    endpoints: [{host: ` + fakenet.WeatherHost + `, port: 443}]
    binaries: [{path: ` + attemptPath + `}]
  skip:
    endpoints: [{host: a.` + fakenet.CDNHost + `, port: 443, tls: skip}]
    binaries: [{path: ` + attemptPath + `}]
`
	ways := []string{"plainly", "behind-an-alert", "in-one-segment", "behind-alerts", "alert-of-no-year", "of-no-version", "byte-by-byte", "around-an-alert"}
	attempt := func(b *box) {
		b.Start()
		for _, to := range []struct{ host, other string }{
			{fakenet.WeatherHost, fakenet.FrontedHost},
			{"a." + fakenet.CDNHost, "b." + fakenet.CDNHost},
			{"unlisted." + fakenet.CDNHost, "b." + fakenet.CDNHost}, // permissive mode's
		} {
			for _, way := range ways {
				b.World.Net.Reset()
				o := b.Exec(attemptPath, "hello", to.host+":443", to.other, way)
				reached := slices.ContainsFunc(b.World.Net.Requests(), func(r fakenet.Request) bool { return r.Host == to.other })
				if reached != (b.mode == unboxed) {
					b.World.T.Errorf("%s behind %s, %s: reached is %v\n%s", to.other, to.host, way, reached, o)
				}
			}
			if to.host != fakenet.WeatherHost {
				continue
			}
			// Its own name passes, in the same client.
			b.World.Net.Reset()
			o := b.Exec(attemptPath, "hello", to.host+":443", to.host, "plainly")
			b.judge("its own name", o, true, "GET "+to.host+" /plainly")
		}
		b.logged(fakenet.WeatherHost, "malformed ClientHello")
	}
	inEveryBox(t, policy, attempt)
	withoutBox(t, attempt)
}
