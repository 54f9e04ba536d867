// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/internal/abspath"
)

// What the kernel shows of itself in proc and sysfs, for the whole machine. The
// engines' own lists for containers without privileges (containerd, docker,
// podman) are in these; a bundle of --privileged has none.
var (
	// procMasked tells of the host, or of other containers.
	procMasked = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
		"timer_list", "timer_stats"}
	// procReadOnly has settings. Those of sys that a namespace has for itself are
	// among them: runc cannot leave a part of a tree out, and redirection hangs on
	// those of net. An engine sets them in linux.sysctl.
	procReadOnly = []string{"bus", "driver", "dynamic_debug", "fs", "irq", "mtrr", "sys", "sysrq-trigger", "xen"}
	// sysMasked are the machine's tables, and what its power use tells. sysfs is
	// read-only as a whole.
	sysMasked = []string{"firmware", "devices/virtual/powercap"}
	// sysMounted are where the host mounts other file systems in its sysfs.
	sysMounted = []string{"fs/bpf", "fs/pstore", "fs/resctrl", "firmware/efi/efivars", "kernel/config", "kernel/debug",
		"kernel/security", "kernel/tracing"}
)

// throttled returns where each processor counts how often it was too hot, which
// tells what others compute. They are those of the host: a container sees all.
var throttled = sync.OnceValue(func() []string {
	found, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	if err != nil {
		return nil // a pattern that is wrong
	}
	for i, path := range found {
		found[i] = strings.TrimPrefix(path, "/sys/")
	}
	return found
})

// kernelTypes are the file systems in which a write is a setting of the machine,
// or which tell of it. One from the host is read-only in a container.
var kernelTypes = []string{
	"sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "bpf", "pstore", "efivarfs", "fusectl",
	"binfmt_misc", "selinuxfs", "smackfs", "resctrl", "nfsd", "rpc_pipefs", "hypfs", "xenfs",
}

func isKernelType(p part) bool { return slices.Contains(kernelTypes, p.fstype) }

// kernelView is what a mount shows of the kernel's settings, and where.
type kernelView struct {
	kind kernelKind
	at   string // in the container, links resolved
}

type kernelKind int

const (
	notKernel    kernelKind = iota
	settingsView            // to be read only
	procView
	sysView
)

// masks reports whether parts of the mount have to be hidden.
func (v kernelView) masks() bool { return v.kind == procView || v.kind == sysView }

// kernelKind tells what a place on the host is of the kernel's. Below /sys, a
// tmpfs may hold the hierarchies of cgroups.
func (p place) kernelKind() kernelKind {
	switch own := p.parts[0]; {
	case own.fstype == "sysfs" && own.path == "/":
		return sysView
	case isKernelType(own) || abspath.Within(p.path, "/sys"):
		return settingsView
	}
	return notKernel
}

// protectKernel masks what is the machine's and makes its settings read-only, in
// every mode and at every place where they are mounted. What the engine has in
// its lists stays there.
func protectKernel(spec *specs.Spec, p preparation) error {
	masked, readOnly := &spec.Linux.MaskedPaths, &spec.Linux.ReadonlyPaths
	for i, v := range p.views {
		m := &spec.Mounts[i]
		switch v.kind {
		case procView:
			addPaths(masked, v.at, procMasked)
			addPaths(readOnly, v.at, procReadOnly)
		case sysView:
			addPaths(masked, v.at, sysMasked)
			addPaths(masked, v.at, throttled())
			if isBind(*m) {
				addPaths(masked, v.at, sysMounted)
			}
			makeReadOnly(m)
		case settingsView:
			makeReadOnly(m)
		}
	}
	return nil
}

// addPaths adds paths below a directory to a list that may have them.
func addPaths(list *[]string, dir string, names []string) {
	for _, name := range names {
		if path := filepath.Join(dir, name); !slices.Contains(*list, path) {
			*list = append(*list, path)
		}
	}
}

// makeReadOnly makes a mount read-only, with what is mounted below it.
func makeReadOnly(m *specs.Mount) {
	want := []string{"ro"}
	if isBind(*m) {
		want = append(want, "rro")
	}
	isAccess := func(o string) bool { return slices.Contains([]string{"rw", "ro", "rrw", "rro"}, o) }
	m.Options = append(slices.DeleteFunc(slices.Clone(m.Options), isAccess), want...)
}

// setOptions writes the options of mounts that were changed in place, so that
// setList finds them as they are.
func setOptions(doc document, before, after []specs.Mount) error {
	at, last, err := doc.parent([]string{"mounts"})
	if err != nil {
		return err
	}
	objects, _ := at[last].([]any)
	for i, m := range before {
		for len(objects) > 0 {
			var known specs.Mount
			if err := specialize(objects[0], &known); err != nil {
				return err
			}
			object, ok := objects[0].(map[string]any)
			objects = objects[1:]
			if !ok || !reflect.DeepEqual(known, m) {
				continue
			}
			if !slices.Equal(m.Options, after[i].Options) {
				if err := (document{object}).set(after[i].Options, "options"); err != nil {
					return err
				}
			}
			break
		}
	}
	return nil
}
