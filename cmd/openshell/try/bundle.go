package try

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/config"
	"openshell.ai/openshell/internal/rootfs"
)

// bundle is an OCI bundle whose root file system is an overlay over the host's
// root, with its changes in a tmpfs of its own.
type bundle struct{ dir string }

// newBundle mounts the overlay. The tmpfs is not for speed alone: overlayfs
// refuses an upper directory that lies within its lower one.
func newBundle(dir string) (_ *bundle, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	b := &bundle{dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.remove())
		}
	}()
	if err := unix.Mount("openshell", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	for _, d := range []string{"upper", "work", "rootfs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make bundle: %w", err)
		}
	}
	data := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", dir, dir)
	if err := unix.Mount("overlay", b.rootfs(), "overlay", 0, data); err != nil {
		return nil, fmt.Errorf("mount overlay over /: %w", err)
	}
	return b, b.writeHosts()
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

// remove unmounts and deletes the bundle, and the directory of bundles when it
// was the last.
func (b *bundle) remove() error {
	for _, mount := range []string{b.rootfs(), b.dir} {
		err := unix.Unmount(mount, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	if err := os.Remove(b.dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(b.dir)) // others may be running
	return nil
}

// capabilities are what docker gives a container, less those that the runtime
// drops anyway.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func newSpec(c *config.Config, o options, b *bundle, cwd string, args []string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: b.rootfs()},
		Process: &specs.Process{
			Terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())),
			Args:     args,
			Env:      environment(o.env),
			Cwd:      cwd,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
		},
		Hostname:    hostname,
		Mounts:      mounts(o, cwd),
		Annotations: annotate(o),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			// The overlay shows the host's own directories where no file
			// system of their own is mounted on them.
			MaskedPaths: []string{c.StateDir, c.RunDir, c.CredentialsDir, "/proc/kcore", "/proc/keys",
				"/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

func mounts(o options, cwd string) []specs.Mount {
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
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

func environment(extra []string) []string {
	var env []string
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, e := range extra {
		if value, ok := os.LookupEnv(e); ok && !strings.Contains(e, "=") {
			e += "=" + value
		}
		if strings.Contains(e, "=") {
			env = append(env, e)
		}
	}
	return env
}
