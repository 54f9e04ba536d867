// SPDX-License-Identifier: Apache-2.0

package node

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// firstOutside is the user outside that is root in a container's user namespace.
const firstOutside = 100000

// UserNamespace gives a container a user namespace, as docker does with
// userns-remap, podman with --uidmap, and Kubernetes with hostUsers: false; a new one
// where there is no path. The container has to be shifted.
func UserNamespace(path string) Edit {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: path})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstOutside, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}
}

// Shift makes a container's files belong to the users of its user namespace, and
// lets these reach them.
func (c *Container) Shift() *Container {
	c.World.T.Helper()
	for dir := c.Bundle; filepath.Dir(dir) != "/"; dir = filepath.Dir(dir) {
		Must(c.World.T, os.Chmod(dir, 0o755))
	}
	Must(c.World.T, filepath.WalkDir(c.Rootfs(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, firstOutside, firstOutside)
	}))
	return c
}
