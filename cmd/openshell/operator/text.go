// SPDX-License-Identifier: Apache-2.0

package operator

import "openshell.ai/openshell/cmd/openshell/describe"

// The words of package describe, as the commands use them.
var (
	plain      = describe.Plain
	count      = describe.Count
	subject    = describe.Subject
	shortID    = describe.ShortID
	indent     = describe.Indent
	writeTable = describe.WriteTable
	writeDiff  = describe.WriteDiff
	paint      = describe.Paint
	coloured   = describe.Coloured
)
