// SPDX-License-Identifier: Apache-2.0

package try

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/rootfs"
)

// bundle is an OCI bundle whose root file system is an overlay over the host's
// root, with its changes in a tmpfs of its own.
type bundle struct {
	dir  string
	held *os.File // locked for as long as the bundle is in use
}

// newBundle makes the bundle of a view of the host. What is hidden is marked as removed
// in the overlay's upper layer, before there is an overlay. The tmpfs is not for
// speed alone: overlayfs refuses an upper directory that lies within its lower one.
func newBundle(dir string, v view) (_ *bundle, err error) {
	b := &bundle{dir: dir}
	unlock, err := lockBundles(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	defer unlock()
	if err := sweep(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("remove what a killed run left: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.clear())
		}
	}()
	if err := unix.Mount("openshell", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	if b.held, err = flock(dir, unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	root, err := newLayers(dir, "/", v)
	if err == nil {
		err = os.Mkdir(b.rootfs(), 0o755)
	}
	if err == nil {
		err = b.mountAt(root, "/")
	}
	if err == nil && v.shown != "" {
		err = b.mountShown(v)
	}
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	return b, b.writeHosts()
}

// mountShown shows a directory that the root's overlay does not, in an overlay of
// its own.
func (b *bundle) mountShown(v view) error {
	// By a mount of its own the directory has a name that mount(2) takes,
	// whatever it is called.
	lower := filepath.Join(b.dir, "shown-lower")
	if err := os.Mkdir(lower, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(v.shown, lower, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: v.shown, Err: err}
	}
	defer func() { _ = unix.Unmount(lower, unix.MNT_DETACH) }() // the overlay has it
	l, err := newLayers(filepath.Join(b.dir, "shown"), v.shown, v)
	if err != nil {
		return err
	}
	l.lower = lower
	return b.mountAt(l, v.shown)
}

// mountAt mounts an overlay in the root file system. Who owns a directory above the
// place may put a link there meanwhile: then it fails.
func (b *bundle) mountAt(l layers, path string) error {
	root, err := rootfs.At(b.rootfs()).Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return l.mount(root, path)
}

// hostname is the workload's. Programs look their own name up, and no DNS
// server knows this one.
const hostname = "openshell"

func (b *bundle) writeHosts() error {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make bundle: %w", err)
	}
	hosts = fmt.Appendf(hosts, "\n127.0.1.1 %s\n", hostname)
	// It goes to the overlay's upper layer, as the workload's own changes do.
	root, err := rootfs.At(b.rootfs()).Open()
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	defer root.Close()
	name, err := root.Resolve("/etc/hosts") // a link may be absolute
	if err == nil {
		err = root.WriteFile(name, hosts, 0o644)
	}
	if err != nil {
		return fmt.Errorf("make bundle: /etc/hosts: %w", err)
	}
	return nil
}

func (b *bundle) rootfs() string { return filepath.Join(b.dir, "rootfs") }

func (b *bundle) write(spec *specs.Spec) error {
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o600)
}

// remove unmounts and deletes the bundle.
func (b *bundle) remove() error {
	unlock, err := lockBundles(filepath.Dir(b.dir))
	if err != nil {
		return err
	}
	defer unlock()
	return b.clear()
}

// clear is remove for who has the lock.
func (b *bundle) clear() error {
	if b.held != nil {
		b.held.Close()
	}
	for _, mount := range []string{b.rootfs(), filepath.Join(b.dir, "shown-lower"), b.dir} {
		err := unix.Unmount(mount, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	return os.Remove(b.dir)
}

// lockBundles locks the directory of bundles against others who make or remove
// one. It stays when the last has gone.
func lockBundles(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := flock(dir, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// flock locks a directory for as long as the file is open.
func flock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f, nil
}

// sweep removes the bundles of runs that were killed. Their containers do not
// outlive them.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b := &bundle{dir: filepath.Join(dir, e.Name())}
		b.held, err = flock(b.dir, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // it is in use
		}
		if err != nil {
			return err
		}
		if err := errors.Join(deleteContainer(e.Name()), b.clear()); err != nil {
			return err
		}
	}
	return nil
}

// capabilities are what docker gives a container, less those that the runtime
// drops anyway.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func newSpec(o options, b *bundle, v view, args []string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: b.rootfs()},
		Process: &specs.Process{
			Terminal: isTerminal(),
			Args:     args,
			Env:      environment(o.env, o.envAll),
			Cwd:      v.cwd,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
		},
		Hostname:    hostname,
		Mounts:      mounts(o, v.cwd),
		Annotations: annotate(o),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: append(v.masked, "/proc/kcore", "/proc/keys",
				"/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

func mounts(o options, cwd string) []specs.Mount {
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}},
	}
	if o.bind {
		out = append(out, specs.Mount{Destination: cwd, Type: "bind", Source: cwd, Options: []string{"rbind", "rw"}})
	}
	return out
}

func annotate(o options) map[string]string {
	a := map[string]string{"org.opencontainers.image.ref.name": "the host's root"}
	if o.policy != "" {
		a[annotations.KeyPolicy] = o.policy
	}
	if o.permissive {
		a[annotations.KeyPermissive] = "true"
		if o.ttl > 0 {
			a[annotations.KeyPermissiveTTL] = o.ttl.String()
		}
	}
	return a
}

// passed are the variables of the shell that programs need and that hold no
// secrets. Others are named with --env.
var passed = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TERM", "COLORTERM", "TZ", "SHELL"}

// environment is the command's: what is passed of this process's, or all of it,
// and extra, which says NAME or NAME=VALUE.
func environment(extra []string, all bool) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if all && !strings.HasPrefix(name, "OPENSHELL_") || slices.Contains(passed, name) {
			env = append(env, e)
		}
	}
	for _, e := range extra {
		name, _, given := strings.Cut(e, "=")
		if value, ok := os.LookupEnv(name); ok && !given {
			e += "=" + value
		} else if !given {
			continue
		}
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, e)
	}
	return env
}
