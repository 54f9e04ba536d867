// SPDX-License-Identifier: Apache-2.0

// Command openshell-keeper starts a sandbox's supervisor again when that dies:
// see package keeper.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"openshell.ai/openshell/internal/keeper"
	"openshell.ai/openshell/internal/version"
)

func main() {
	if slices.Equal(os.Args[1:], []string{"--version"}) {
		fmt.Println(keeper.Name, "version", version.String())
		return
	}
	// There is one of it for each sandbox, and hardly anything to do.
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(4 << 20)
	if err := keeper.Run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", keeper.Name, err)
		os.Exit(1)
	}
}
