// SPDX-License-Identifier: Apache-2.0

// Command openshell is an OCI runtime that wraps runc, and the tool by which an
// operator reviews what a permissive run proposes.
package main

import (
	"os"

	"openshell.ai/openshell/cmd/openshell/app"
)

func main() { os.Exit(app.Run(os.Args[1:])) }
