// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"fmt"

	"openshell.ai/openshell/runtime"
)

// The command line is runc's: options that openshell does not know of are the low-level runtime's.
func ExampleParseArgs() {
	inv := runtime.ParseArgs([]string{"--root", "/run/engine", "create", "--bundle", "/bundle", "--pid-file", "/pid", "web"})
	fmt.Println(inv.Command, inv.ID, inv.Bundle, inv.Root)
	// Output: create web /bundle /run/engine
}
