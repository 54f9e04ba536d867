// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// A server that compares Host with what it serves may take one spelling of a name
// for another site. What arrives is the connection's name as it is usually written.
func TestSpellingsOfAHost(t *testing.T) {
	const host = fakenet.WebHost
	const policy = `version: 1
network_policies:
  web:
    endpoints: [{host: ` + host + `, port: 80, protocol: rest, enforcement: enforce, access: full}]
    binaries: [{path: /usr/bin/client}]
`
	usual := []string{host, host + ":80"}
	heads := map[string]string{
		"Host":          "GET /x HTTP/1.1\r\nHost: %s\r\n",
		"absolute form": "GET http://%s/x HTTP/1.1\r\nHost: ignored.example\r\n",
	}
	attempt := func(b *box) {
		b.Start()
		for form, head := range heads {
			for _, spelling := range []string{
				host, host + ".", host + ":0080", host + ".:80", strings.ToUpper(host), host + ":+80", host + ":", host + "..",
				"user@" + host, host + "@other.example", "other.example@" + host, "web%2eexample", "other.example", host + ":81", host + ",other.example",
				"[" + host + "]", "0x2d402d0c", "45.64.45.12",
			} {
				b.World.Net.Reset()
				request := strings.ReplaceAll(fmt.Sprintf(head, spelling)+"Connection: close\r\n\r\n", "\r\n", `\r\n`)
				o := b.Client("tcp", "-e", "-t", "5s", host+":80", request)
				arrived := ""
				for _, r := range b.World.Net.Requests() {
					arrived = r.Host
				}
				if b.mode == unboxed {
					if form == "Host" && (spelling == host+"." || spelling == host+":0080") && arrived != spelling {
						b.World.T.Errorf("%s as %s arrives as %q: %+v", host, spelling, arrived, o)
					}
					continue
				}
				if arrived != "" && !slices.Contains(usual, arrived) || arrived == "" && slices.Contains([]string{host, host + ".", host + ":0080", strings.ToUpper(host)}, spelling) {
					b.World.T.Errorf("%s %q arrives as %q: %+v", form, spelling, arrived, o)
				}
			}
		}
	}
	inEveryBox(t, policy, attempt)
	withoutBox(t, attempt)
}
