// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
)

// guarded is a file or directory of the host's that no container may see.
type guarded struct {
	path string
	what string // for people
	// tree refuses what is in the directory, too. Elsewhere engines keep files
	// of containers.
	tree bool
	at   place // where it is, see settle
}

// engineSockets are what turns a container into the host: whoever can talk to
// an engine can start a container that is no sandbox.
var engineSockets = []string{
	"/run/docker.sock", "/run/containerd/containerd.sock", "/run/containerd", "/run/podman/podman.sock",
	"/run/crio/crio.sock", "/run/buildkit/buildkitd.sock", "/run/k3s/containerd/containerd.sock",
	"/run/dockershim.sock", "/run/docker/containerd/containerd.sock", "/run/cri-dockerd.sock",
	"/run/containerd/containerd.sock.ttrpc", "/run/docker.pid",
}

// engineTrees are an engine's, with all that is in them: sockets of shims and of
// the kubelet, containers' configurations and what the engine is told by.
var engineTrees = []string{
	"/run/containerd/s", "/run/containerd/io.containerd.runtime.v2.task", "/run/runc", "/run/crun", "/run/docker/plugins",
	"/var/lib/docker/plugins", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet/plugins_registry",
	"/var/lib/kubelet/pod-resources", "/var/lib/kubelet/pki", "/etc/kubernetes/manifests", "/etc/docker",
	"/etc/containerd", "/etc/crio",
}

// engineData are where engines keep all containers and images: who writes there
// decides what runs on the host. Single volumes in them are harmless.
var engineData = []string{
	"/var/lib/docker", "/var/lib/docker/containers", "/var/lib/docker/overlay2", "/var/lib/docker/image",
	"/var/lib/containerd", "/var/lib/containers", "/var/lib/containers/storage", "/var/lib/kubelet",
	"/var/lib/kubelet/pods",
	"/var/lib/crio", "/var/lib/buildkit", "/var/lib/nerdctl", "/var/lib/rancher", "/var/lib/cni",
}

// userEngines are the sockets of engines that people run without being root,
// below each one's runtime directory.
var userEngines = []string{"docker.sock", "podman/podman.sock", "containerd-rootless", "buildkit/buildkitd.sock"}

// socketNames are engines' sockets wherever they are.
var socketNames = []string{
	"docker.sock", "containerd.sock", "containerd.sock.ttrpc", "podman.sock", "crio.sock", "buildkitd.sock",
	"dockershim.sock",
	"cri-dockerd.sock", "kubelet.sock",
}

// hostGuard returns what is kept from containers on this machine. root is the
// low-level runtime's state directory.
func hostGuard(c *config.Config, root string) []guarded {
	all := []guarded{
		{path: c.StateDir, what: "which holds openshell's state", tree: true}, {path: c.RunDir,
			what: "which holds openshell's state", tree: true},
		{path: c.PolicyDir, what: "which holds openshell's policies", tree: true}, {path: config.CredentialsDir,
			what: "which holds openshell's credentials", tree: true},
		{path: c.MaximumPolicy, what: "openshell's maximum policy", tree: true}, {path: c.File(),
			what: "openshell's configuration", tree: true},
		{path: root, what: "which holds the low-level runtime's state", tree: true},
	}
	add := func(paths []string, what string, tree bool) {
		for _, p := range paths {
			all = append(all, guarded{path: p, what: what, tree: tree})
		}
	}
	const socket = "a container engine's socket"
	add(engineSockets, socket, false)
	users, _ := filepath.Glob("/run/user/*") // fails for bad patterns only
	for _, dir := range users {
		for _, name := range userEngines {
			add([]string{filepath.Join(dir, name)}, socket, false)
		}
	}
	add(engineTrees, "which a container engine obeys", true)
	add(engineData, "which holds a container engine's containers", false)
	return slices.DeleteFunc(all, func(g guarded) bool { return g.path == "" })
}

// mountTypes are the file systems that a container may have mounted anew: they
// are its own, or protectKernel sees to them. Others have the host's state, its
// disks or another machine behind them.
var mountTypes = []string{"tmpfs", "ramfs", "devpts", "mqueue", "hugetlbfs", "overlay", "proc", "sysfs", "cgroup",
	"cgroup2"}

// checkMounts refuses mounts that lead out of the sandbox, and returns what each
// shows of the kernel's settings.
func checkMounts(spec *specs.Spec, files tree, rootfs place, h host) ([]kernelView, error) {
	views := make([]kernelView, len(spec.Mounts))
	for i, m := range spec.Mounts {
		fail := func(err error) ([]kernelView, error) {
			return nil, fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
		point := files.mounts[i]
		if abspath.Within("/"+m.Destination, confine.Dir) || abspath.Within(point.at, confine.Dir) {
			return fail(fmt.Errorf("%s belongs to the sandbox", confine.Dir))
		}
		if slices.Contains(m.Options, "remount") {
			return fail(errors.New("options: remount would change another mount"))
		}
		view, err := h.view(m)
		if err != nil {
			return fail(err)
		}
		if view.masks() && !point.known {
			return fail(fmt.Errorf("type %s: its place must be a directory of the image, and not in a mount", m.Type))
		}
		view.at = point.at
		views[i] = view
	}
	// What is mounted in the container could be had a second time, unmasked, by
	// its name on the host.
	for i, m := range spec.Mounts {
		for _, source := range sourcesOf(m) {
			p, err := h.place(source)
			if err != nil {
				return nil, fmt.Errorf("mounts[%d] (%s): source %s: %w", i, m.Destination, source, err)
			}
			for _, v := range views {
				if inner := rootfs.below(v.at); v.kind != notKernel && (p.contains(inner) || inner.contains(p)) {
					return nil, fmt.Errorf("mounts[%d] (%s): source %s leads to the container's own %s", i, m.Destination, source,
						v.at)
				}
			}
		}
	}
	return views, nil
}

// view refuses a mount by its type and by what it has of the host.
func (h host) view(m specs.Mount) (kernelView, error) {
	switch {
	case isBind(m):
	case !slices.Contains(mountTypes, m.Type):
		return kernelView{}, fmt.Errorf("type %q must not be mounted in a sandbox: use one of %s, or bind", m.Type,
			strings.Join(mountTypes, ", "))
	case m.Type == "proc":
		return kernelView{kind: procView}, nil
	case m.Type == "sysfs":
		return kernelView{kind: sysView}, nil
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return kernelView{kind: settingsView}, nil
	}
	var v kernelView
	for _, source := range sourcesOf(m) {
		if !isBind(m) && !path.IsAbs(source) {
			return kernelView{}, fmt.Errorf("options: layer %q is not an absolute path", source)
		}
		p, err := h.nearest(source) // an engine's socket is refused where no engine runs, too
		if err != nil {
			return kernelView{}, fmt.Errorf("source %s: %w", source, err)
		}
		if err := h.checkPlace(p); err != nil {
			return kernelView{}, fmt.Errorf("source %s %w", source, err)
		}
		if p.kind == 0 {
			return kernelView{}, fmt.Errorf("source %s: %w", source, fs.ErrNotExist)
		}
		if kind := p.kernelKind(); kind != notKernel {
			v.kind = kind
		}
	}
	if v.kind != notKernel && !isBind(m) {
		return kernelView{}, errors.New("options: a layer is the kernel's own file system")
	}
	return v, nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// sourcesOf returns the host's paths that a mount shows. A source is given in
// both readings: the kernel goes by links before "..", programs that clean it do not.
func sourcesOf(m specs.Mount) []string {
	switch {
	case isBind(m) && path.Clean(m.Source) != m.Source:
		return []string{m.Source, path.Clean(m.Source)}
	case isBind(m):
		return []string{m.Source}
	case m.Type == "overlay":
		return layersOf(m.Options)
	}
	return nil
}

// layersOf returns the directories of an overlay, as the kernel reads them from
// its options (fs/overlayfs/params.c): commas and colons may be escaped.
func layersOf(options []string) []string {
	var layers []string
	for _, option := range splitEscaped(strings.Join(options, ","), ',') {
		name, value, ok := strings.Cut(option, "=")
		if !ok {
			continue
		}
		switch name {
		case "lowerdir":
			for _, layer := range splitEscaped(value, ':') {
				if layer != "" { // "::" is before layers that have only data
					layers = append(layers, unescape(layer))
				}
			}
		case "upperdir", "workdir", "lowerdir+", "datadir+":
			layers = append(layers, value)
			if plain := unescape(value); plain != value {
				layers = append(layers, plain)
			}
		}
	}
	return layers
}

// splitEscaped splits at a separator that has no backslash before it. Backslashes
// stay.
func splitEscaped(s string, separator byte) []string {
	var out []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// checkPlace refuses what would be a way out of the sandbox. Errors go on after
// the source's name.
func (h host) checkPlace(p place) error {
	if p.kind == unix.S_IFSOCK && slices.Contains(socketNames, path.Base(p.path)) {
		return errors.New("is a container engine's socket")
	}
	if slices.ContainsFunc(p.parts, func(x part) bool { return x.fstype == "proc" }) {
		return errors.New("has the host's /proc, which must not be mounted: it leads to processes and settings outside the sandbox")
	}
	if p.contains(h.dev) || slices.ContainsFunc(p.parts,
		func(x part) bool { return x.fstype == "devtmpfs" && x.path == "/" }) {
		return errors.New("has the host's /dev, which must not be mounted: mount single devices")
	}
	for _, g := range h.guarded {
		if p.contains(g.at) || g.tree && g.at.contains(p) {
			return fmt.Errorf("exposes %s, %s", g.path, g.what)
		}
	}
	if p.kernelKind() == notKernel && slices.ContainsFunc(p.parts, isKernelType) {
		return errors.New("has one of the kernel's own file systems mounted below it")
	}
	return nil
}
