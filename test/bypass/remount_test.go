// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A file of the host that is mounted read-only stays as it is.
func TestReadOnlyMountOfTheHost(t *testing.T) {
	attempt := func(b *box) {
		canary := b.hostFile("untouched")
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{
			Destination: "/srv", Type: "bind", Source: filepath.Dir(canary), Options: []string{"bind", "ro"},
		})
		b.Write()
		b.Start()
		b.Exec("/bin/sh", "-c", "mount -o remount,bind,rw /srv; echo touched > /srv/canary")
	}
	inEveryBox(t, "version: 1\nfilesystem_policy: {read_write: [/srv]}\n", attempt)
	withoutBox(t, attempt)
}
