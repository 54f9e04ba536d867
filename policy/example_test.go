// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"

	"openshell.ai/openshell/policy"
)

func ExampleParse() {
	p, warnings, err := policy.Parse([]byte(`version: 1
network_policies:
  weather:
    endpoints: [{host: api.weather.example, port: 443}]
    binaries: [{path: /usr/bin/curl}]
`))
	fmt.Println(len(p.Network), warnings, err)

	_, _, err = policy.Parse([]byte("version: 1\nnetwork_polices: {}\n"))
	fmt.Println(err)
	// Output:
	// 1 [] <nil>
	// 2:1: network_polices: unknown field "network_polices": did you mean "network_policies"?
}

func ExampleDiff() {
	parse := func(host string) *policy.Policy {
		p, _, err := policy.Parse([]byte("version: 1\nnetwork_policies: {a: {endpoints: [{host: " + host +
			", port: 443}], binaries: [{path: /usr/bin/curl}]}}\n"))
		if err != nil {
			panic(err)
		}
		return p
	}
	for _, line := range policy.Diff(parse("old.example"), parse("new.example")) {
		fmt.Println(line)
	}
	// Output:
	// - /usr/bin/curl old.example:443 (tcp)
	// + /usr/bin/curl new.example:443 (tcp)
}
