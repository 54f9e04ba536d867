// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

func ExampleEngine_Connect() {
	p, _, err := policy.Parse([]byte(`version: 1
network_policies:
  weather:
    endpoints: [{host: "*.weather.example", port: 443}]
    binaries: [{path: /usr/bin/curl}]
`))
	if err != nil {
		panic(err)
	}
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		panic(err)
	}
	for _, host := range []string{"api.weather.example", "exfil.example"} {
		m := e.Connect(engine.Connection{Binary: "/usr/bin/curl", Host: host, Port: 443})
		fmt.Println(host, m.Allowed, m.Policy)
	}
	// Output:
	// api.weather.example true weather
	// exfil.example false
}
