// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// A port that no rule allows is refused at once, whatever the client says first, or nothing; and so is an allowed one
// where nobody listens.
func TestDeniedPortsAreRefusedAtOnce(t *testing.T) {
	cases.Show(t, "clients/enforcing denial on a closed port")
	t.Parallel()
	w := node.New(t)
	w.Policy("ports", `version: 1
network_policies:
  web:
    endpoints:
      - {host: web.example, ports: [80, 7777]}
      - {host: web.example, port: 8888, protocol: rest, access: full}
    binaries: [{path: /usr/bin/client}]
`)
	c := w.Container(node.Policy("ports")).Start()
	const limit = 20 * time.Second // of the client; what hangs does so for longer than the proxy waits for a first word
	address := fakenet.Addrs(fakenet.WebHost)[0].String()
	for name, argv := range map[string][]string{
		"HTTP":                   {"get", "http://web.example:81/"},
		"HTTPS":                  {"get", "https://web.example:444/"},
		"another host's HTTPS":   {"get", "https://api.github.example/"},
		"silence":                {"tcp", "web.example:2121"},
		"silence, by address":    {"tcp", address + ":2121"},
		"a word":                 {"tcp", "web.example:2121", "USER anonymous"},
		"the beginning of TLS":   {"tcp", "-e", "web.example:2121", `\x16\x03\x01`},
		"the beginning of HTTP":  {"tcp", "web.example:2121", "GET"},
		"nobody listens":         {"tcp", "web.example:7777", "x"},
		"nobody listens, silent": {"tcp", "web.example:7777"},
		"nobody listens, HTTP":   {"get", "http://web.example:8888/"},
		"nobody listens, HTTPS":  {"get", "https://web.example:8888/"},
	} {
		r := c.Client(append([]string{argv[0], "-t", limit.String()}, argv[1:]...)...)
		if r.Status == 200 || strings.Contains(r.Error, "timeout") || strings.Contains(r.Error, "deadline") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, port := range []string{"81", "444", "2121"} {
		node.Eventually(t, node.Patience, "the log tells of port "+port, func() bool {
			return strings.Contains(w.AuditLog(c), "web.example:"+port)
		})
	}
}
