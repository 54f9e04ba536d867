// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/test/fakenet"
)

// Edit changes a container's configuration before it is written.
type Edit func(*specs.Spec)

// plainSpec is what a plain bundle has, as `runc spec` makes it, but for the
// capabilities, which are an engine's.
func plainSpec() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"/bin/sleep", "1000"},
			Env:  []string{"PATH=/bin:/usr/bin", "TERM=xterm"},
			Cwd:  "/",
			Capabilities: CapabilitySets([]string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL",
				"CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}),
		},
		Hostname: "e2e",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

func CapabilitySets(names []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names, Inheritable: names, Ambient: names}
}

// Args makes the container run a program.
func Args(argv ...string) Edit {
	return func(s *specs.Spec) { s.Process.Args = argv }
}

// Annotate sets an annotation.
func Annotate(key, value string) Edit {
	return func(s *specs.Spec) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[key] = value
	}
}

// Policy names the container's policy.
func Policy(name string) Edit { return Annotate(annotations.KeyPolicy, name) }

// Permissive makes the container's run permissive.
func Permissive(s *specs.Spec) { Annotate(annotations.KeyPermissive, "true")(s) }

// NetnsPath makes the spec name a network namespace, as an engine does that
// prepared one.
func NetnsPath(n *fakenet.Net) Edit {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = n.Outer()
			}
		}
	}
}

func Script(text string) Edit { return Args("/bin/sh", "-c", text) }

// Everything asks for all capabilities that can be given, and for no seccomp
// profile.
func Everything(s *specs.Spec) {
	s.Process.Capabilities = CapabilitySets(held)
	s.Process.NoNewPrivileges = false
	s.Linux.Seccomp = nil
}

// held are the capabilities of this process: runc cannot give others away.
var held []string

func findHeld() error {
	own, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	if err := own.Load(); err != nil {
		return err
	}
	for _, c := range capability.ListKnown() {
		if own.Get(capability.PERMITTED, c) {
			held = append(held, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return nil
}
