// SPDX-License-Identifier: Apache-2.0

// Command openshell-init confines itself and becomes the workload. The runtime
// puts it, with its files, before the container's own program:
//
//	openshell-init [--stay] [--dir DIR] -- PROGRAM [ARGUMENT...]
//	openshell-init --version
//
// With --stay it starts the program instead, and stays the container's first
// process, confined like the program.
//
// It restricts and never grants: a workload that runs it confines itself once
// more. It exits with 127 when the program is not found and with 126 for any
// other failure; it never executes the program without its confinement.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"openshell.ai/openshell/internal/version"
)

func main() {
	// Landlock and seccomp restrict the thread that asks, which must be the one
	// that executes the program.
	runtime.LockOSThread()
	if slices.Equal(os.Args[1:], []string{"--version"}) {
		fmt.Println("openshell-init version", version.String())
		return
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "openshell-init: %v\n", err)
		status = exitCode(err)
	}
	os.Exit(status)
}
