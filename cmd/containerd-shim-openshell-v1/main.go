// SPDX-License-Identifier: Apache-2.0

// Command containerd-shim-openshell-v1 is a containerd runtime v2 shim that
// runs each container or pod in a sandbox.
package main

import "openshell.ai/openshell/shim"

func main() { shim.Main() }
