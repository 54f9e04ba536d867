// SPDX-License-Identifier: Apache-2.0

package names

import (
	"strings"
	"testing"
)

func TestServiceHost(t *testing.T) {
	for name, want := range map[string]string{
		"_https._tcp.example.org":                             "example.org",
		"_dmarc.example.org":                                  "example.org",
		"_25._tcp.mx.example.org":                             "mx.example.org",
		"_grpc_config.example.org":                            "example.org",
		"_acme-challenge.example.org":                         "example.org",
		"_kerberos-master._udp.example.org":                   "example.org",
		"example.org":                                         "",
		"www._tcp.example.org":                                "",
		"_a._b._c.example.org":                                "", // nobody's service
		"_" + strings.Repeat("a", 16) + ".example.org":        "", // too long for a service
		"_https._" + strings.Repeat("a", 16) + ".example.org": "",
		"_.example.org":                                       "",
		`_a\046b.example.org`:                                 "",
		"_tcp":                                                "",
		"":                                                    "",
	} {
		if want == "" {
			want = name
		}
		if got := ServiceHost(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
