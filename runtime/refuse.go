package runtime

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/confine"
)

// host is what a spec is held against: facts about this machine, so that the
// check itself touches nothing.
type host struct {
	private []string             // directories no container may see: state and run directory
	real    func(string) string  // a path with its symbolic links resolved
	hostPID func(ns string) bool // the namespace of that path is the host's
}

// engineSockets are what turns a container into the host: whoever can talk to
// an engine can start a container that is no sandbox.
var engineSockets = []string{
	"/run/docker.sock", "/run/containerd/containerd.sock", "/run/containerd", "/run/podman/podman.sock",
	"/run/crio/crio.sock", "/run/buildkit/buildkitd.sock", "/run/k3s/containerd/containerd.sock",
	"/run/dockershim.sock", "/run/docker/containerd/containerd.sock", "/run/cri-dockerd.sock",
	"/run/containerd/containerd.sock.ttrpc", "/run/containerd/s",
}

// check refuses a container that could undo its sandbox. Errors name the field.
// hostRoot says that the root file system is the host's own.
func check(spec *specs.Spec, hostRoot bool, h host) error {
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return errors.New("process.args: no program")
	}
	if hostRoot {
		return errors.New("root.path: the host's own root file system")
	}
	if err := checkNamespaces(spec, h); err != nil {
		return err
	}
	if len(spec.Linux.NetDevices) > 0 {
		return errors.New("linux.netDevices: a device in the workload's namespace would be a way around the proxy")
	}
	for i, m := range spec.Mounts {
		if err := checkMount(m, h); err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	return checkDevices(spec)
}

func checkNamespaces(spec *specs.Spec, h host) error {
	index := func(kind specs.LinuxNamespaceType) int {
		return slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	}
	if i := index(specs.PIDNamespace); i < 0 || spec.Linux.Namespaces[i].Path != "" && h.hostPID(spec.Linux.Namespaces[i].Path) {
		return errors.New("linux.namespaces: the host's PID namespace would let the workload reach processes outside its sandbox")
	}
	if index(specs.MountNamespace) < 0 {
		return errors.New("linux.namespaces: without a mount namespace, the sandbox's files would be mounted on the host's own")
	}
	return nil
}

func checkMount(m specs.Mount, h host) error {
	if within("/"+m.Destination, confine.Dir) {
		return fmt.Errorf("%s belongs to the sandbox", confine.Dir)
	}
	if !isBind(m) {
		return nil
	}
	source := h.real(m.Source)
	if source == "/dev" {
		return errors.New("the host's /dev must not be mounted")
	}
	if within(source, "/proc") {
		return errors.New("the host's /proc must not be mounted: it leads to processes and settings outside the sandbox")
	}
	for _, dir := range h.private {
		if real := h.real(dir); within(source, real) || within(real, source) {
			return fmt.Errorf("source %s exposes %s, which holds openshell's state", m.Source, dir)
		}
	}
	for _, socket := range engineSockets {
		if within(socket, source) || within(h.real(socket), source) {
			return fmt.Errorf("source %s exposes %s, a container engine's socket", m.Source, socket)
		}
	}
	return nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// checkDevices refuses a container that may make, or is given, the host's
// disks: their content is outside every mount and rule.
func checkDevices(spec *specs.Spec) error {
	open := openBlockDevices(spec.Linux.Resources)
	if open < 0 {
		return nil
	}
	for _, d := range spec.Linux.Devices {
		if d.Type == "b" {
			return fmt.Errorf("linux.resources.devices[%d]: all block devices are allowed, and linux.devices gives %s", open, d.Path)
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

// thisHost returns the facts about this machine. Relative paths are the
// bundle's.
func thisHost(bundle string, private ...string) host {
	return host{
		private: private,
		real:    func(path string) string { return resolved(filepath.Clean(absolute(bundle, path))) },
		hostPID: func(ns string) bool {
			var a, b unix.Stat_t
			if unix.Stat(ns, &a) != nil || unix.Stat("/proc/self/ns/pid", &b) != nil {
				return true // in doubt, it is
			}
			return a.Dev == b.Dev && a.Ino == b.Ino
		},
	}
}

// resolved follows the symbolic links of an absolute path as far as it exists:
// /var/run/docker.sock is /run/docker.sock before an engine runs, too.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil || path == "/" {
		return real
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}
