// SPDX-License-Identifier: Apache-2.0

// Package e2e_test proves the product from outside: real containers through the
// real low-level runtime, in a fake internet, judged by what the origins and the
// name server saw, by the files on disk, by /proc and by exit statuses.
package e2e_test

import (
	"testing"

	"openshell.ai/openshell/test/node"
)

func TestMain(m *testing.M) { node.Main(m) }
