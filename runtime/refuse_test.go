package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// testHost is a machine whose /var/run is a link to /run, as everywhere, and
// whose process 1 is in the host's PID namespace.
var testHost = host{
	private: []string{"/var/lib/openshell", "/run/openshell"},
	real: func(p string) string {
		if rest, ok := strings.CutPrefix(filepath.Clean(p), "/var/run"); ok {
			return "/run" + rest
		}
		if p == "/run/dockershim.sock" {
			return "/run/elsewhere/engine.sock" // the socket itself is a link
		}
		return filepath.Clean(p)
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
			s.Mounts = []specs.Mount{{Destination: "/ok", Type: "tmpfs"}, {Destination: destination, Source: source, Options: []string{"rbind"}}}
		}
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
		{"a device for the namespace", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }, "linux.netDevices"},

		{"plain bind", bound("/srv/data", "/data"), ""},
		{"over the launcher", bound("/srv/data", "/dev/.openshell/openshell-init"), "mounts[1] (/dev/.openshell/openshell-init): /dev/.openshell belongs"},
		{"over the launcher, relative", bound("/srv/data", "dev/../dev/.openshell"), "mounts[1]"},
		{"state directory", bound("/var/lib/openshell", "/s"), "mounts[1] (/s): source /var/lib/openshell exposes"},
		{"in the state directory", bound("/var/lib/openshell/policies", "/s"), "mounts[1]"},
		{"above the run directory", bound("/run", "/s"), "mounts[1]"},
		{"a similar name", bound("/var/lib/openshell2", "/s"), ""},
		{"the root", bound("/", "/host"), "mounts[1]"},
		{"host's /dev", bound("/dev", "/hostdev"), "mounts[1]"},
		{"one device", bound("/dev/fuse", "/dev/fuse"), ""},
		{"host's /proc", bound("/proc", "/host/proc"), "mounts[1] (/host/proc): the host's /proc"},
		{"host's settings", bound("/proc/sys/kernel", "/k"), "mounts[1]"},
		{"socket", bound("/var/run/docker.sock", "/s"), "exposes /run/docker.sock, a container engine's socket"},
		{"socket by its target", bound("/run/elsewhere/engine.sock", "/s"), "container engine's socket"},
		{"directory of a socket", bound("/run/podman", "/s"), "container engine's socket"},
		{"file of an engine", bound("/run/containerd/io.containerd.grpc.v1.cri/x/shm", "/dev/shm"), ""},
		{"no bind", func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/run", Type: "tmpfs", Source: "/run"}} }, ""},

		{"all devices and a disk", devices(nil, true, everything), "linux.resources.devices[0]: all block devices are allowed, and linux.devices gives /dev/sda"},
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
			err := check(s, false, testHost)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if err := check(validSpec(), true, testHost); err == nil || !strings.Contains(err.Error(), "root.path") {
		t.Errorf("the host's root: %v", err)
	}
}

// Relative paths in a specification are the bundle's, not the caller's.
func TestThisHostResolvesInTheBundle(t *testing.T) {
	bundle := t.TempDir()
	if err := os.Symlink("/", filepath.Join(bundle, "rootfs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(bundle, "var-run")); err != nil {
		t.Fatal(err)
	}
	h := thisHost(bundle)
	for path, want := range map[string]string{"rootfs": "/", "rootfs/proc": "/proc", "/var/../proc": "/proc", "gone/x": bundle + "/gone/x",
		"var-run/no-such-engine/x.sock": "/run/no-such-engine/x.sock"} {
		if got := h.real(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if !h.hostPID("/proc/self/ns/pid") || !h.hostPID("/nowhere") || h.hostPID("/proc/self/ns/net") {
		t.Error("the host's PID namespace is not told from others")
	}
}
