// SPDX-License-Identifier: Apache-2.0

package paths

// Type is what a segment of a path looks like, by its form alone.
type Type string

// Types of segments that others than a Set tell apart too.
const (
	Static  Type = ""
	Integer Type = typeInteger
	UUID    Type = typeUUID
	Hex     Type = typeHex
	Token   Type = typeToken
)

// TypeOf tells identifiers from names. Types without a constant here are written like those.
func TypeOf(segment string) Type { return Type(typeOf(segment)) }
