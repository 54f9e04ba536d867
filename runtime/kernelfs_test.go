// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// viewsOf is what check finds of the kernel in a bundle's mounts.
func viewsOf(t *testing.T, file string) []kernelView {
	t.Helper()
	_, spec, err := loadSpec(file)
	if err != nil {
		t.Fatal(err)
	}
	rootfs, err := testHost.place("/bundle/rootfs")
	if err != nil {
		t.Fatal(err)
	}
	h, err := testHost.settle()
	if err != nil {
		t.Fatal(err)
	}
	views, err := checkMounts(spec, emptyTree(t, spec), rootfs, h)
	if err != nil {
		t.Fatal(err)
	}
	return views
}

func TestProtectKernel(t *testing.T) {
	config := strings.Replace(withLinux(`{"maskedPaths":["/proc/keys","/of/the/engine"],"readonlyPaths":["/proc/sys","/proc/asound"]}`), `"root"`, `"mounts":[
		{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]},
		{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["rw"]},
		{"destination":"/sys","type":"sysfs","source":"sysfs","options":["rw","nosuid"],"flavour":"new"},
		{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","rw"]},
		{"destination":"/unified","type":"cgroup2","source":"cgroup2"},
		{"destination":"host-proc/../p2/","type":"proc","source":"p","options":["rw"]},
		{"destination":"/s2","type":"sysfs","source":"s"},
		{"destination":"/hostsys","type":"bind","source":"/sys","options":["rbind","rrw","rw"]},
		{"destination":"/hostbpf","type":"bind","source":"/srv/bpf","options":["bind"]},
		{"destination":"/data","type":"bind","source":"/srv/data","options":["rbind","rw"]}],"root"`, 1)
	file := writeBundle(t, config)
	for range 2 { // a second preparation changes nothing
		p := testPreparation
		p.views = viewsOf(t, file)
		spec, raw := prepared(t, file, p)
		options := map[string]string{}
		for _, m := range spec.Mounts[:10] {
			options[m.Destination] = strings.Join(m.Options, ",")
		}
		for destination, want := range map[string]string{
			"/proc": "nosuid", "/dev": "rw", "/sys": "nosuid,ro", "/sys/fs/cgroup": "nosuid,ro", "/unified": "ro", "host-proc/../p2/": "rw",
			"/s2": "ro", "/hostsys": "rbind,ro,rro", "/hostbpf": "bind,ro,rro", "/data": "rbind,rw",
		} {
			if got := options[destination]; got != want {
				t.Errorf("options of %s are %s, want %s", destination, got, want)
			}
		}
		if flavour := raw["mounts"].([]any)[2].(map[string]any)["flavour"]; flavour != "new" {
			t.Errorf("a field of a changed mount is lost: %v", raw["mounts"])
		}
		for list, want := range map[*[]string][]string{
			&spec.Linux.MaskedPaths: {"/of/the/engine", "/proc/kcore", "/proc/keys", "/proc/scsi", "/proc/timer_list", "/p2/kcore", "/p2/keys",
				"/sys/firmware", "/sys/devices/virtual/powercap", "/s2/firmware", "/hostsys/firmware", "/hostsys/kernel/debug"},
			&spec.Linux.ReadonlyPaths: {"/proc/asound", "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/p2/sys", "/p2/sysrq-trigger"},
		} {
			for _, path := range want {
				if n := len(slices.DeleteFunc(slices.Clone(*list), func(p string) bool { return p != path })); n != 1 {
					t.Errorf("%s is %d times in %q", path, n, *list)
				}
			}
			if i := slices.IndexFunc(*list, func(p string) bool { return strings.HasPrefix(p, "/data") || strings.HasPrefix(p, "/dev") }); i >= 0 {
				t.Errorf("%q has nothing of the kernel", (*list)[i])
			}
		}
	}
}

// What engines hide today is hidden in any container: the lists are those of
// containerd 2.4, docker 29 and podman 5.
func TestProtectKernelHidesWhatEnginesDo(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{}, Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/sys", Type: "sysfs"}}}
	if err := protectKernel(spec, preparation{views: []kernelView{{procView, "/proc"}, {sysView, "/sys"}}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(`/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list
		/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap`) {
		if !slices.Contains(spec.Linux.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
	for _, path := range strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger") {
		if !slices.Contains(spec.Linux.ReadonlyPaths, path) {
			t.Errorf("%s is not read-only", path)
		}
	}
}

// A link of the image's leads a mount elsewhere: the masks are where it is.
func TestProtectKernelFollowsLinks(t *testing.T) {
	spec := validSpec()
	spec.Root.Path = t.TempDir()
	for _, err := range []error{os.Mkdir(spec.Root.Path+"/real", 0o755), os.Symlink("/real", spec.Root.Path+"/link")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	spec.Mounts = []specs.Mount{{Destination: "/link/proc", Type: "proc"}, {Destination: "/link", Type: "tmpfs"}}
	views, err := check(spec, specTree(t, "/", spec), testHost)
	if err != nil || views[0] != (kernelView{procView, "/real/proc"}) {
		t.Errorf("%+v, %v", views, err)
	}
}
