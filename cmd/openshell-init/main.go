// Command openshell-init confines itself and becomes the workload. The runtime
// puts it, with its files, before the container's own program:
//
//	openshell-init [--dir DIR] -- PROGRAM [ARGUMENT...]
//
// It restricts and never grants: a workload that runs it confines itself once
// more. It exits with 127 when the program is not found and with 126 for any
// other failure; it never executes the program without its confinement.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	// Landlock and seccomp restrict the thread that asks, which must be the one
	// that executes the program.
	runtime.LockOSThread()
	err := run(os.Args[1:])
	fmt.Fprintf(os.Stderr, "openshell-init: %v\n", err)
	os.Exit(exitCode(err))
}
