// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
)

// Some servers read more into a request's target than is written there. Where any
// of what they may read is not allowed, it does not arrive; what does arrives byte
// for byte.
func TestWhatATargetMayBeReadAs(t *testing.T) {
	cases.Show(t, "clients/signed path", "clients/path parameters")
	const policy = `version: 1
network_policies:
  public:
    endpoints:
      - host: ` + fakenet.WebHost + `
        port: 80
        protocol: rest
        enforcement: enforce
        rules: [{allow: {method: GET, path: "/public/**"}}, {allow: {method: POST, path: "/model/**"}}]
    binaries: [{path: /usr/bin/client}]
`
	never := []string{ // in any mode
		`/public/..%5Csecret`, `/public/%5C..%5Csecret`, `/public/..\secret`, `/public/a%5c..%5c..%5csecret`,
		`/public/%00/../secret`, `/public/..%c0%afsecret`, `/public/%c0%ae%c0%ae/secret`, `/public/..%e0%80%afsecret`,
		`/public/..%255csecret`, `/public/..%2F..%2Fsecret`, `/public/..%252f..%252fsecret`, `/public/%u002e%u002e/secret`,
		`/public/../../secret`, `/public%2Fx/../../secret`,
	}
	denied := []string{
		`/public/../secret`, `/public/%2e%2e/secret`, `/public/..;/secret`, `/public/%252e%252e/secret`, `/public/.%25252e/secret`,
		`/public/..%3Bx/secret`, `/public/x/..//../secret`, `/public/%ef%bc%8e%ef%bc%8e/secret`, `//secret`,
	}
	allowed := []string{`/public/a//b`, `/public/x%2Cy`, `/public/x;v=1/y;jsessionid=AB`, `/public/a%2Fb`, `/public/100%25`, `/public/a%2520b?q=%zz&r=\`, `/public/a|b/.`}
	attempt := func(b *box) {
		b.Start()
		arrives := func(method, target string) bool {
			b.World.Net.Reset()
			request := fmt.Sprintf(`%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`, method, strings.ReplaceAll(target, `\`, `\\`), fakenet.WebHost)
			b.Client("tcp", "-e", "-t", "5s", fakenet.WebHost+":80", request)
			return slices.ContainsFunc(b.World.Net.Requests(), func(r fakenet.Request) bool { return r.Target == target })
		}
		check := func(method, target string, want bool) {
			if got := arrives(method, target); got != want {
				b.World.T.Errorf("%s %s arrives: %v", method, target, got)
			}
		}
		for _, target := range never {
			// Go's own server, which the canary is, takes no bad escape.
			check("GET", target, b.mode == unboxed && !strings.Contains(target, "%u"))
		}
		for _, target := range denied {
			check("GET", target, !b.enforced())
		}
		for _, target := range allowed {
			check("GET", target, true)
		}
		check("POST", "/model/anthropic.x-v1%3A0/invoke", true)
	}
	inEveryBox(t, policy, attempt)
	withoutBox(t, attempt)
}
