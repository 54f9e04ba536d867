// SPDX-License-Identifier: Apache-2.0

package annotations_test

import (
	"fmt"

	"openshell.ai/openshell/annotations"
)

func ExampleParse() {
	request, err := annotations.Parse(map[string]string{
		annotations.KeyPolicy:        "agent",
		annotations.KeyPermissive:    "true",
		annotations.KeyPermissiveTTL: "30m",
		"org.example.other":          "left alone",
	})
	fmt.Println(request.Policy, request.Permissive, request.TTL, err)

	_, err = annotations.Parse(map[string]string{"openshell.ai/permisive": "true"})
	fmt.Println(err)
	// Output:
	// agent true 30m0s <nil>
	// unknown annotation "openshell.ai/permisive": did you mean openshell.ai/permissive?
}
