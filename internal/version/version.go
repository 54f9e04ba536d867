// SPDX-License-Identifier: Apache-2.0

// Package version owns what this build calls itself, in every program, event and file.
package version

import "cmp"

// stamp is set by the linker: -X openshell.ai/openshell/internal/version.stamp=v1.2.3
var stamp string

// String is the version: a tag, or what git describe makes of one, or "devel" for a build that
// nobody stamped.
func String() string { return cmp.Or(stamp, "devel") }
