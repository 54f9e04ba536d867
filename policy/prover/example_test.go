// SPDX-License-Identifier: Apache-2.0

package prover_test

import (
	"fmt"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

func ExampleWithin() {
	parse := func(host string) *policy.Policy {
		p, _, err := policy.Parse([]byte("version: 1\nnetwork_policies: {a: {endpoints: [{host: \"" + host +
			"\", port: 443}], binaries: [{path: /usr/bin/curl}]}}\n"))
		if err != nil {
			panic(err)
		}
		return p
	}
	maximum := parse("api.example.com")
	fmt.Println(prover.Within(parse("api.example.com"), maximum))
	fmt.Println(prover.Within(parse("*.example.com"), maximum) != nil)
	// Output:
	// <nil>
	// true
}
