// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestHasProcesses(t *testing.T) {
	for _, tt := range []struct {
		fstype, root string
		want         bool
	}{
		{"proc", "/", true},
		{"proc", "/17", true},
		{"proc", "/17/task", true},
		{"proc", "/sys", false},
		{"proc", "/sys/net", false},
		{"proc", "/sysrq-trigger", false},
		{"tmpfs", "/", false},
		{"ext4", "/17", false},
	} {
		if got := hasProcesses(&mountinfo.Info{FSType: tt.fstype, Root: tt.root}); got != tt.want {
			t.Errorf("%s of %s: %t, want %t", tt.root, tt.fstype, got, tt.want)
		}
	}
}
