// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/config"
)

// testMounts are what is mounted on testHost: among it the host's /dev, its
// /var/lib and its run directory a second time.
var testMounts = []*mountinfo.Info{
	mountOf(1, "254:0", "/", "/", "ext4"), mountOf(2, "0:20", "/", "/proc", "proc"), mountOf(3, "0:21", "/", "/sys", "sysfs"),
	mountOf(4, "0:6", "/", "/dev", "devtmpfs"), mountOf(5, "0:22", "/", "/dev/shm", "tmpfs"), mountOf(6, "0:23", "/", "/run", "tmpfs"),
	mountOf(7, "0:27", "/", "/sys/fs/cgroup", "tmpfs"), mountOf(8, "0:28", "/", "/sys/fs/cgroup/cpu", "cgroup"), mountOf(9, "0:29", "/", "/sys/kernel/debug", "debugfs"),
	mountOf(10, "0:6", "/", "/mnt/devices", "devtmpfs"), mountOf(11, "254:0", "/var/lib", "/mnt/lib", "ext4"), mountOf(12, "0:23", "/openshell", "/mnt/o", "tmpfs"),
	mountOf(13, "0:20", "/", "/chroot/proc", "proc"), mountOf(14, "0:21", "/", "/srv/mixed/sys", "sysfs"), mountOf(15, "254:0", "/", "/mnt/all", "ext4"),
	mountOf(16, "0:31", "/", "/srv/bpf", "bpf"),
}

func mountOf(id int, device, root, point, fstype string) *mountinfo.Info {
	m := &mountinfo.Info{ID: id, Root: root, Mountpoint: point, FSType: fstype}
	if _, err := fmt.Sscanf(device, "%d:%d", &m.Major, &m.Minor); err != nil {
		panic(err)
	}
	return m
}

// testHost is a machine whose /var/run is a link to /run, as everywhere, and
// whose process 1 is in the host's PID namespace.
var testHost = host{
	guarded: hostGuard(&config.Config{StateDir: "/var/lib/openshell", RunDir: "/run/openshell", PolicyDir: "/etc/openshell/policies",
		MaximumPolicy: "/srv/max.yaml"}, "/run/low/runc"),
	place: func(p string) (place, error) {
		p = filepath.Clean(absolute("/bundle", p))
		if strings.Contains(p, "missing") {
			return place{}, fs.ErrNotExist
		}
		if rest, ok := strings.CutPrefix(p, "/var/run"); ok {
			p = "/run" + rest
		}
		kind := uint32(unix.S_IFDIR)
		switch {
		case p == "/run/dockershim.sock":
			p = "/run/elsewhere/engine.sock" // the socket itself is a link
		case strings.HasSuffix(p, ".sock"):
			kind = unix.S_IFSOCK
		case p == "/dev/sda":
			kind = unix.S_IFBLK
		}
		parts, err := partsAt(testMounts, 0, p)
		return place{p, kind, parts}, err
	},
	hostPID: func(ns string) bool { return ns == "/proc/1/ns/pid" },
}

func validSpec() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"sh"}},
		Root:    &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

func number(n int64) *int64 { return &n }

func TestCheck(t *testing.T) {
	everything := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	nothing := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	bound := func(source, destination string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: destination, Source: source, Options: []string{"rbind"}}}
		}
	}
	mount := func(m specs.Mount) func(*specs.Spec) { return func(s *specs.Spec) { s.Mounts = []specs.Mount{m} } }
	overlay := func(options ...string) func(*specs.Spec) {
		return mount(specs.Mount{Destination: "/o", Type: "overlay", Source: "overlay", Options: options})
	}
	devices := func(caps []string, disk bool, rules ...specs.LinuxDeviceCgroup) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Devices: rules}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
			if disk {
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c"}, {Path: "/dev/sda", Type: "b"}}
			}
		}
	}
	mknod := []string{"CAP_MKNOD"}
	tests := []struct {
		name   string
		change func(*specs.Spec)
		want   string // in the error; "" for none
	}{
		{"valid", func(*specs.Spec) {}, ""},
		{"no program", func(s *specs.Spec) { s.Process.Args = nil }, "process.args"},
		{"host's PID namespace", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "linux.namespaces"},
		{"host's PID namespace by path", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" }, "linux.namespaces"},
		{"another container's PID namespace", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/9/ns/pid" }, ""},
		{"no mount namespace", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, "linux.namespaces"},
		{"another mount namespace", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/proc/1/ns/mnt" }, "linux.namespaces: the mount namespace must be a new one"},
		{"a device for the namespace", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }, "linux.netDevices"},

		{"plain bind", bound("/srv/data", "/data"), ""},
		{"missing", bound("/srv/missing", "/data"), "mounts[1] (/data): source /srv/missing: file does not exist"},
		{"missing, of an engine", bound("/run/containerd/missing", "/data"), "source /run/containerd/missing: file does not exist"},
		{"missing, in the state directory", bound("/var/lib/openshell/missing", "/data"), "exposes /var/lib/openshell"},
		{"over the launcher", bound("/srv/data", "/dev/.openshell/openshell-init"), "mounts[1] (/dev/.openshell/openshell-init): /dev/.openshell belongs"},
		{"over the launcher, relative", bound("/srv/data", "dev/../dev/.openshell"), "mounts[1]"},
		{"state directory", bound("/var/lib/openshell", "/s"), "mounts[1] (/s): source /var/lib/openshell exposes /var/lib/openshell, which holds openshell's state"},
		{"in the state directory", bound("/var/lib/openshell/policies", "/s"), "mounts[1]"},
		{"state directory, more slashes", bound("//var///lib/./openshell/", "/s"), "exposes"},
		{"state directory, up and down", bound("/srv/../var/lib/openshell", "/s"), "exposes"},
		{"state directory, mounted again", bound("/mnt/lib/openshell", "/s"), "exposes /var/lib/openshell"},
		{"above the state directory, mounted again", bound("/mnt/lib", "/s"), "exposes /var/lib/openshell"},
		{"above what is mounted again", bound("/mnt", "/s"), "mounts[1]"},
		{"the root, mounted again", bound("/mnt/all", "/s"), "exposes"},
		{"run directory, mounted again", bound("/mnt/o", "/s"), "exposes /run/openshell"},
		{"in the run directory, mounted again", bound("/mnt/o/sandboxes", "/s"), "exposes /run/openshell"},
		{"policies", bound("/etc/openshell/policies", "/s"), "openshell's policies"},
		{"credentials", bound("/etc/openshell/credentials/a", "/s"), "openshell's credentials"},
		{"above the configuration", bound("/etc", "/s"), "exposes /etc/openshell"},
		{"maximum policy", bound("/srv/max.yaml", "/s"), "openshell's maximum policy"},
		{"above the maximum policy", bound("/srv", "/s"), "mounts[1]"},
		{"low-level runtime's state", bound("/run/low/runc/other", "/s"), "low-level runtime's state"},
		{"above the run directory", bound("/run", "/s"), "mounts[1]"},
		{"above the run directory, by a link", bound("/var/run", "/s"), "mounts[1]"},
		{"above the state directory", bound("/var", "/s"), "mounts[1]"},
		{"a similar name", bound("/var/lib/openshell2", "/s"), ""},
		{"the root", bound("/", "/host"), "mounts[1]"},
		{"the root, no bind by its type", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/h", Type: "ext4", Source: "/", Options: []string{"bind"}}}
		}, "mounts[0]"},
		{"host's /dev", bound("/dev", "/hostdev"), "mounts[1] (/hostdev): source /dev has the host's /dev"},
		{"host's /dev, mounted again", bound("/mnt/devices", "/hostdev"), "the host's /dev"},
		{"one device", bound("/dev/fuse", "/dev/fuse"), ""},
		{"one device, mounted again", bound("/mnt/devices/null", "/dev/null"), ""},
		{"a directory of devices", bound("/dev/dri", "/dev/dri"), ""},
		{"memory of the host's /dev", bound("/dev/shm", "/dev/shm"), ""},
		{"host's /proc", bound("/proc", "/host/proc"), "mounts[1] (/host/proc): source /proc has the host's /proc"},
		{"host's settings", bound("/proc/sys/kernel", "/k"), "mounts[1]"},
		{"host's /proc, mounted again", bound("/chroot/proc/sys", "/k"), "the host's /proc"},
		{"above the host's /proc, mounted again", bound("/chroot", "/k"), "the host's /proc"},
		{"host's sysfs", bound("/sys", "/sys"), ""},
		{"host's cgroups", bound("/sys/fs/cgroup", "/sys/fs/cgroup"), ""},
		{"host's sysfs among others", bound("/srv/mixed", "/m"), "has one of the kernel's own file systems mounted below it"},
		{"socket", bound("/var/run/docker.sock", "/s"), "engine's socket"},
		{"socket by its target", bound("/run/elsewhere/engine.sock", "/s"), "container engine's socket"},
		{"directory of a socket", bound("/run/podman", "/s"), "exposes /run/podman/podman.sock, a container engine's socket"},
		{"socket elsewhere", bound("/home/u/.docker/run/docker.sock", "/s"), "container engine's socket"},
		{"another socket", bound("/run/dbus/bus.sock", "/s"), ""},
		{"socket of a shim", bound("/run/containerd/s/abc", "/s"), "exposes /run/containerd/s"},
		{"kubelet's sockets", bound("/var/lib/kubelet/device-plugins", "/s"), "exposes /var/lib/kubelet/device-plugins"},
		{"file of an engine", bound("/run/containerd/io.containerd.grpc.v1.cri/x/shm", "/dev/shm"), ""},
		{"all containers", bound("/var/lib/containers/storage", "/d"), "which holds a container engine's containers"},
		{"all pods", bound("/var/lib/kubelet/pods", "/d"), "which holds a container engine's containers"},
		{"one volume", bound("/var/lib/docker/volumes/v/_data", "/d"), ""},
		{"files of a container", bound("/var/lib/docker/containers/x/hosts", "/etc/hosts"), ""},
		{"volume of a pod", bound("/var/lib/kubelet/pods/u/volumes/k/v", "/d"), ""},
		{"image's own proc", bound("/bundle/rootfs/proc", "/p"), "mounts[1] (/p): source /bundle/rootfs/proc leads to the container's own /proc"},
		{"in the image's own proc", bound("/bundle/rootfs/proc/sys", "/p"), "leads to the container's own /proc"},
		{"image, mounted again", bound("/mnt/all/bundle/rootfs", "/p"), "mounts[1] (/p)"},
		{"bundle", bound("/bundle", "/b"), "leads to the container's own /proc"},
		{"another part of the image", bound("/bundle/rootfs/srv", "/b"), ""},
		{"no bind", mount(specs.Mount{Destination: "/run", Type: "tmpfs", Source: "/run"}), ""},

		{"proc elsewhere", mount(specs.Mount{Destination: "/host-proc", Type: "proc", Source: "proc"}), ""},
		{"proc at a place to come", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/run", Type: "tmpfs"}, {Destination: "/run/p", Type: "proc"}}
		}, "mounts[1] (/run/p): type proc: its place must be"},
		{"devices", mount(specs.Mount{Destination: "/d", Type: "devtmpfs"}), `mounts[0] (/d): type "devtmpfs" must not be mounted`},
		{"a disk", mount(specs.Mount{Destination: "/d", Type: "ext4", Source: "/dev/sda1"}), `type "ext4"`},
		{"debugfs", mount(specs.Mount{Destination: "/d", Type: "debugfs"}), `type "debugfs"`},
		{"binfmt_misc", mount(specs.Mount{Destination: "/d", Type: "binfmt_misc"}), `type "binfmt_misc"`},
		{"no type", mount(specs.Mount{Destination: "/d", Source: "/srv/data"}), `type ""`},
		{"a type in capitals", mount(specs.Mount{Destination: "/d", Type: "PROC"}), `type "PROC"`},
		{"remount", mount(specs.Mount{Destination: "/sys", Type: "tmpfs", Options: []string{"remount", "rw"}}), "mounts[0] (/sys): options: remount"},

		{"overlay", overlay("lowerdir=/srv/a:/srv/b", "upperdir=/srv/u", "workdir=/srv/w"), ""},
		{"overlay over the state", overlay("lowerdir=/srv/a:/var/lib/openshell", "upperdir=/srv/u,workdir=/srv/w"), "mounts[0] (/o): source /var/lib/openshell exposes"},
		{"overlay over /dev", overlay("lowerdir=/dev"), "the host's /dev"},
		{"overlay of data", overlay("lowerdir=/srv/a::/run"), "mounts[0]"},
		{"overlay with added layers", overlay("lowerdir+=/srv/a", "lowerdir+=/"), "mounts[0]"},
		{"overlay with added data", overlay("lowerdir+=/srv/a", "datadir+=/var/lib"), "mounts[0]"},
		{"overlay whose upper is the state", overlay("lowerdir=/srv/a", "upperdir=/var/lib/openshell/x", "workdir=/srv/w"), "exposes"},
		{"overlay whose work is the state", overlay("lowerdir=/srv/a", "upperdir=/srv/u", "workdir=/mnt/lib/openshell/w"), "exposes"},
		{"overlay in one option", overlay("ro,lowerdir=/srv/a:/run/openshell"), "exposes"},
		{"overlay escaped", overlay(`lowerdir=/srv/a\:b:/va\r/lib/openshell`), "exposes"},
		{"overlay relative", overlay("lowerdir=../../var/lib"), "options: layer"},
		{"overlay over sysfs", overlay("lowerdir=/sys/kernel"), "a layer is the kernel's own"},
		{"overlay over proc of the image", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/o", Type: "overlay", Options: []string{"lowerdir=/bundle/rootfs/proc"}}}
		}, "leads to the container's own /proc"},

		{"all devices and a disk", devices(nil, true, everything), "linux.resources.devices[0]: all block devices are allowed, and linux.devices gives /dev/sda"},
		{"all devices and a mounted disk", func(s *specs.Spec) {
			devices(nil, false, everything)(s)
			bound("/dev/sda", "/d")(s)
		}, "linux.resources.devices[0]: all block devices are allowed, and mounts[1] gives /dev/sda"},
		{"all devices and mknod", devices(mknod, false, nothing, everything), "linux.resources.devices[1]: all block devices are allowed, and CAP_MKNOD"},
		{"all devices alone", devices(nil, false, everything), ""},
		{"closed again", devices(mknod, true, everything, nothing), ""},
		{"half closed", devices(mknod, false, everything, specs.LinuxDeviceCgroup{Access: "w"}), "devices[0]"},
		{"all block devices", devices(nil, true, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: number(-1), Minor: number(-1), Access: "r"}), "devices[0]"},
		{"all character devices", devices(mknod, true, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Access: "rwm"}), ""},
		{"one disk", devices(mknod, true, nothing, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: number(8), Minor: number(0), Access: "rw"}), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec()
			tt.change(s)
			_, err := check(s, emptyTree(t, s), testHost)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	for root, want := range map[string]string{"/": "the host's own root", "/mnt/all": "the host's own root", "/var": "exposes", "/mnt/lib": "exposes",
		"/chroot": "/proc", "/sys": "the kernel's own", "/run/openshell/bundles/x/rootfs": ""} {
		s := validSpec()
		s.Root.Path = root
		_, err := check(s, emptyTree(t, s), testHost)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "root.path")) {
			t.Errorf("root %s: %v, want %q", root, err, want)
		}
	}
}

// Relative paths in a specification are the bundle's, not the caller's, and the
// kernel says what a path leads to.
func TestThisHostResolvesInTheBundle(t *testing.T) {
	bundle := t.TempDir()
	for name, target := range map[string]string{"rootfs": "/", "var-run": "/run", "loop": "loop", "magic": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(bundle, name)); err != nil {
			t.Fatal(err)
		}
	}
	h := thisHost(config.Default(), bundle, "/run/runc")
	for path, want := range map[string]string{"rootfs": "/", "rootfs/proc": "/proc", "/usr/../proc/": "/proc", "//proc/./sys": "/proc/sys",
		"gone/x": bundle + "/gone/x", "var-run/no-such-engine/x.sock": "/run/no-such-engine/x.sock"} {
		got, err := h.nearest(path)
		if err != nil || got.path != want || len(got.parts) == 0 {
			t.Errorf("%s is %+v, want %s: %v", path, got, want, err)
		}
	}
	for _, path := range []string{"/proc/self/root", "/proc/self/root/dev", "/proc/1/root/var", "/proc/thread-self/root/", "/proc/self/cwd", "magic/etc", "loop"} {
		if got, err := h.place(path); err == nil {
			t.Errorf("%s is %+v", path, got)
		}
	}
	for path, fstype := range map[string]string{"/proc/sys": "proc", "/sys/kernel": "sysfs"} {
		if got, err := h.place(path); err != nil || got.parts[0].fstype != fstype {
			t.Errorf("%s is %+v, want %s: %v", path, got, fstype, err)
		}
	}
	if !h.hostPID("/proc/self/ns/pid") || !h.hostPID("/nowhere") || h.hostPID("/proc/self/ns/net") {
		t.Error("the host's PID namespace is not told from others")
	}
}

// Whatever a layer is called, and whatever is around it, it is found.
func FuzzLayersOf(f *testing.F) {
	f.Add("lowerdir=/a:/b,upperdir=/c", "/d", ":/e,ro")
	f.Add("ro", `/a:b\c,d`, ",workdir=/x")
	f.Fuzz(func(t *testing.T, before, layer, after string) {
		if layer == "" || strings.HasSuffix(before, `\`) {
			return // the separator would be escaped
		}
		escaped := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(layer)
		for _, name := range []string{"lowerdir", "upperdir", "workdir"} {
			options := []string{before, name + "=" + escaped}
			if name == "lowerdir" {
				options[1] += ":" + after
			}
			if got := layersOf(options); !slices.Contains(got, layer) {
				t.Errorf("%q has the layers %q", options, got)
			}
		}
	})
}
