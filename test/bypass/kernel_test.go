// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/node"
)

// everywhere lets all be read.
const everywhere = "version: 1\nfilesystem_policy: {read_only: [/]}\n"

// kernelMounts adds what shows the machine's settings a second time, and cgroups.
func kernelMounts(s *specs.Spec) {
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data/proc", Type: "proc", Source: "proc"},
		specs.Mount{Destination: "/data/sys", Type: "sysfs", Source: "sysfs", Options: []string{"rw"}},
		specs.Mount{Destination: "/data/hostsys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rw"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"rw"}})
}

var kernelDirs = []string{"/proc", "/sys", "/data/proc", "/data/sys", "/data/hostsys"}

// No setting of the machine can be written, wherever it is mounted.
func TestSettingsOfTheMachine(t *testing.T) {
	attempt := func(b *box) {
		kernelMounts(b.Spec)
		b.Write()
		b.Start()
		o := b.Exec(append([]string{attemptPath, "writable"}, kernelDirs...)...)
		found := strings.Fields(o.Stdout)
		if o.Status != 0 || (len(found) > 0) != (b.mode == unboxed) {
			b.World.T.Errorf("%d files can be written, as %q (%s)", len(found), found[:min(len(found), 20)], o.Stderr)
		}
		if b.mode != unboxed {
			return
		}
		// The search finds what it is to find.
		for _, want := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/vm/", "/data/proc/sys/kernel/", "/sys/module/", "/data/sys/kernel/", "/sys/fs/cgroup/", "/proc/irq/"} {
			if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, want) }) {
				b.World.T.Errorf("%s is not among what can be written", want)
			}
		}
	}
	inEveryBox(t, everywhere, attempt)
	withoutBox(t, attempt)
}

// A program of the workload's choice does not become the host's, on whatever way
// the file is reached.
func TestCorePattern(t *testing.T) {
	const file = "sys/kernel/core_pattern"
	attempt := func(b *box) {
		kernelMounts(b.Spec)
		b.Write()
		value := ""
		if b.mode != unboxed { // there it is only opened
			value = "|/openshell-bypass"
			b.guard("/proc/" + file)
		}
		b.Start()
		for _, proc := range []string{"/proc", "/data/proc"} {
			o := b.Exec(attemptPath, "write-through", proc, value, file)
			if ways := strings.Fields(o.Stdout); (len(ways) > 0) != (b.mode == unboxed) {
				b.World.T.Errorf("%s: written by %q\n%s", proc, ways, o)
			}
		}
	}
	inEveryBox(t, everywhere, attempt)
	withoutBox(t, attempt)
}

// What shows the machine's memory and tables is hidden.
func TestMaskedFiles(t *testing.T) {
	attempt := func(b *box) {
		kernelMounts(b.Spec)
		b.Write()
		b.Start()
		for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/data/proc/interrupts", "/data/proc/keys"} {
			if _, err := os.Stat(filepath.Join("/proc", filepath.Base(path))); err != nil {
				continue // this kernel has none
			}
			o := b.Exec("/bin/head", "-c", "16", path)
			if (o.Stdout != "") != (b.mode == unboxed) {
				b.World.T.Errorf("%s: %q %s", path, o.Stdout, o.Stderr)
			}
		}
	}
	inEveryBox(t, everywhere, attempt)
	withoutBox(t, attempt)
}

// Docker's users and programs set keys of their namespaces: as the engine says, they
// are in force, though they cannot be written inside.
func TestEnginesSettingsHold(t *testing.T) {
	attempt := func(b *box) {
		b.Spec.Linux.Sysctl = map[string]string{"kernel.shmmax": "123456789", "net.ipv4.ip_default_ttl": "33"}
		b.Write()
		b.Start()
		o := b.Exec("/bin/cat", "/proc/sys/kernel/shmmax", "/proc/sys/net/ipv4/ip_default_ttl")
		if o.Stdout != "123456789\n33\n" {
			b.World.T.Errorf("%s", o)
		}
	}
	inEveryBox(t, everywhere, attempt)
}

// Nobody is given the name of another program.
func TestForgedExecutable(t *testing.T) {
	attempt := func(b *box) {
		b.Start()
		o := b.Exec(attemptPath, "mm", "/usr/bin/client")
		if got := strings.TrimSpace(o.Stdout); (got == "EINVAL") != (b.mode != unboxed) {
			b.World.T.Errorf("%s", o)
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}

// Sockets are of the families that the sandbox knows, and say so as a kernel does
// that has no others.
func TestAddressFamilies(t *testing.T) {
	attempt := func(b *box) {
		b.Start()
		o := b.Exec(attemptPath, "families")
		lines := strings.Fields(o.Stdout)
		if len(lines) != 96 {
			b.World.T.Fatalf("%s", o)
		}
		for _, line := range lines {
			what, got, _ := strings.Cut(line, "=")
			want := "EAFNOSUPPORT"
			switch {
			case slices.Contains([]string{"family-1", "family-2", "family-10", "family-16", "netlink-0"}, what):
				want = "ok"
			case strings.HasPrefix(what, "netlink-"):
				want = "EPROTONOSUPPORT"
			}
			if b.mode != unboxed && got != want {
				b.World.T.Errorf("%s is %s, want %s", what, got, want)
			}
		}
		// AF_PACKET is in every kernel that openshell runs on.
		if b.mode == unboxed && !slices.Contains(lines, "family-17=ok") {
			b.World.T.Errorf("%s", o)
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}

// Containers that lead out of the sandbox are not created, with the field named.
func TestRefusedMounts(t *testing.T) {
	w := node.New(t)
	w.Policy("bypass", nothing)
	again := filepath.Join(w.Dir, "again") // a directory of the state's, by another name
	node.Must(t, os.Symlink(w.StateDir, again))
	for name, m := range map[string]specs.Mount{
		"devtmpfs":          {Type: "devtmpfs", Source: "devtmpfs"},
		"disk":              {Type: "ext4", Source: "/dev/vda"},
		"debugfs":           {Type: "debugfs", Source: "debugfs"},
		"binfmt_misc":       {Type: "binfmt_misc", Source: "none"},
		"link":              {Type: "bind", Source: again, Options: []string{"rbind"}},
		"magic link":        {Type: "bind", Source: "/proc/self/root/dev", Options: []string{"rbind"}},
		"parent":            {Type: "bind", Source: filepath.Dir(w.StateDir), Options: []string{"rbind"}},
		"overlay":           {Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/srv:" + w.StateDir}},
		"layers one by one": {Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=" + w.StateDir, "lowerdir+=/srv"}},
		"remount":           {Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "rw"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.Destination = "/data"
			c := w.Container(node.Policy("bypass"), func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) })
			o := w.OCI("create", "--bundle", c.Bundle, c.ID)
			if o.Status == 0 || !strings.Contains(o.Stderr, "mounts[5] (/data): ") || strings.Contains(o.Stderr, "runc") {
				t.Errorf("%s", o)
			}
		})
	}
	if left := w.Sandboxes(); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
