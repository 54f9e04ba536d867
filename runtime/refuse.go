// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// check refuses a container that could undo its sandbox. Errors name the field.
// It returns what each mount shows of the kernel's settings.
func check(spec *specs.Spec, files tree, h host) ([]kernelView, error) {
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return nil, errors.New("process.args: no program")
	}
	h, err := h.settle()
	if err != nil {
		return nil, err
	}
	rootfs, err := h.nearest(spec.Root.Path)
	if err != nil {
		return nil, fmt.Errorf("root.path: %w", err)
	}
	if err := checkRootfs(rootfs, h); err != nil {
		return nil, fmt.Errorf("root.path: %w", err)
	}
	if err := checkNamespaces(spec, h); err != nil {
		return nil, err
	}
	if len(spec.Linux.NetDevices) > 0 {
		return nil, errors.New("linux.netDevices: a device in the workload's namespace would be a way around the proxy")
	}
	views, err := checkMounts(spec, files, rootfs, h)
	if err != nil {
		return nil, err
	}
	return views, checkDevices(spec, h)
}

// checkRootfs refuses a root file system that is the host's, or shows what no
// mount may.
func checkRootfs(rootfs place, h host) error {
	root, err := h.place("/")
	if err != nil {
		return err
	}
	if rootfs.contains(root) {
		return errors.New("the host's own root file system")
	}
	if rootfs.kernelKind() != notKernel {
		return errors.New("the kernel's own file system")
	}
	// openshell's own directories may hold it: `try` makes it there.
	outside := slices.Clone(h.guarded)
	for i := range outside {
		outside[i].tree = false
	}
	h.guarded = outside
	return h.checkPlace(rootfs)
}

func checkNamespaces(spec *specs.Spec, h host) error {
	if i := indexOf(spec, specs.PIDNamespace); i < 0 || spec.Linux.Namespaces[i].Path != "" &&
		h.hostPID(spec.Linux.Namespaces[i].Path) {
		return errors.New("linux.namespaces: the host's PID namespace would let the workload reach processes outside its sandbox")
	}
	switch i := indexOf(spec, specs.MountNamespace); {
	case i < 0:
		return errors.New("linux.namespaces: without a mount namespace, the sandbox's files would be mounted on the host's own")
	case spec.Linux.Namespaces[i].Path != "":
		return errors.New("linux.namespaces: the mount namespace must be a new one, without a path: nothing is masked in another")
	}
	return nil
}

// checkDevices refuses a container that may make, or is given, the host's
// disks: their content is outside every mount and rule.
func checkDevices(spec *specs.Spec, h host) error {
	open := openBlockDevices(spec.Linux.Resources)
	if open < 0 {
		return nil
	}
	for _, d := range spec.Linux.Devices {
		if d.Type == "b" {
			return fmt.Errorf("linux.resources.devices[%d]: all block devices are allowed, and linux.devices gives %s", open,
				d.Path)
		}
	}
	for i, m := range spec.Mounts {
		for _, source := range sourcesOf(m) {
			if p, err := h.place(source); err != nil || p.kind == unix.S_IFBLK {
				return fmt.Errorf("linux.resources.devices[%d]: all block devices are allowed, and mounts[%d] gives %s", open, i,
					source)
			}
		}
	}
	if c := spec.Process.Capabilities; c != nil && slices.Contains(c.Bounding, "CAP_MKNOD") {
		return fmt.Errorf("linux.resources.devices[%d]: all block devices are allowed, and CAP_MKNOD can make them", open)
	}
	return nil
}

// openBlockDevices returns the index of the rule that allows every block device,
// or -1 where the last rule about all of them does not.
func openBlockDevices(r *specs.LinuxResources) int {
	open := -1
	if r == nil {
		return open
	}
	for i, d := range r.Devices {
		about := slices.Contains([]string{"", "a", "b"}, d.Type) && wild(d.Major) && wild(d.Minor)
		switch {
		case about && d.Allow && strings.ContainsAny(d.Access, "rw"):
			open = i
		case about && !d.Allow && strings.Contains(d.Access, "r") && strings.Contains(d.Access, "w"):
			open = -1
		}
	}
	return open
}

func wild(n *int64) bool { return n == nil || *n < 0 }
