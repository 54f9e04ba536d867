// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"testing"
)

// BenchmarkStart measures what a container's creation waits for, and taking it
// down again.
func BenchmarkStart(b *testing.B) {
	c, root := nodeConfig(b.TempDir()), b.TempDir()
	for i := 0; b.Loop(); i++ {
		s, err := Start(c, request(root, fmt.Sprintf("c%d", i)))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Stop()
		b.StartTimer()
	}
}
