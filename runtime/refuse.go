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
	"/run/dockershim.sock", "/run/docker/containerd/containerd.sock",
}

// check refuses a container that could undo its sandbox. Errors name the field.
func check(spec *specs.Spec, h host) error {
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return errors.New("process.args: no program")
	}
	if spec.Linux == nil || spec.Root == nil {
		return errors.New("config.json: not a Linux container (no linux or root section)")
	}
	if h.real(spec.Root.Path) == "/" {
		return errors.New("root.path: the host's own root file system")
	}
	if err := checkPIDNamespace(spec, h); err != nil {
		return err
	}
	for i, m := range spec.Mounts {
		if err := checkMount(m, h); err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	return checkDevices(spec)
}

func checkPIDNamespace(spec *specs.Spec, h host) error {
	i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	if i < 0 || spec.Linux.Namespaces[i].Path != "" && h.hostPID(spec.Linux.Namespaces[i].Path) {
		return errors.New("linux.namespaces: the host's PID namespace would let the workload reach processes outside its sandbox")
	}
	return nil
}

func checkMount(m specs.Mount, h host) error {
	if within(m.Destination, confine.Dir) {
		return fmt.Errorf("%s belongs to the sandbox", confine.Dir)
	}
	if !isBind(m) {
		return nil
	}
	source := h.real(m.Source)
	if source == "/dev" {
		return errors.New("the host's /dev must not be mounted")
	}
	for _, dir := range h.private {
		if within(source, dir) || within(dir, source) {
			return fmt.Errorf("source %s exposes %s, which holds openshell's state", m.Source, dir)
		}
	}
	for _, socket := range engineSockets {
		if source == socket || within(socket, source) && exposes(source) {
			return fmt.Errorf("source %s exposes %s, a container engine's socket", m.Source, socket)
		}
	}
	return nil
}

// exposes tells whether a directory is one of those that hold engines' sockets
// on every machine, whether or not an engine runs now.
func exposes(dir string) bool {
	return slices.Contains([]string{"/", "/run", "/var", "/var/run", "/run/containerd", "/run/podman", "/run/crio"}, dir)
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// checkDevices refuses a container that may make, or is given, the host's
// disks: their content is outside every mount and rule.
func checkDevices(spec *specs.Spec) error {
	r := spec.Linux.Resources
	if r == nil {
		return nil
	}
	open := -1
	for i, d := range r.Devices {
		all := (d.Type == "" || d.Type == "a" || d.Type == "b") && wild(d.Major) && wild(d.Minor) &&
			strings.ContainsAny(d.Access, "rw")
		if all && d.Allow {
			open = i
		} else if all {
			open = -1
		}
	}
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

func wild(n *int64) bool { return n == nil || *n < 0 }

// thisHost returns the facts about this machine.
func thisHost(private ...string) host {
	return host{
		private: private,
		real: func(path string) string {
			abs, err := filepath.Abs(path)
			if err != nil {
				return path
			}
			if resolved, err := filepath.EvalSymlinks(abs); err == nil {
				return resolved
			}
			return abs
		},
		hostPID: func(ns string) bool {
			var a, b unix.Stat_t
			if unix.Stat(ns, &a) != nil || unix.Stat("/proc/self/ns/pid", &b) != nil {
				return true // in doubt, it is
			}
			return a.Dev == b.Dev && a.Ino == b.Ino
		},
	}
}
