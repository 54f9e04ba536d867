// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// Each kind of bundle that is refused is refused with its field named, and is in docs/bundles.md with the reason; so are
// the fields that are changed.
func TestRefusedBundles(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/refusals")
	text, err := os.ReadFile("../../docs/bundles.md")
	node.Must(t, err)
	listed := func(field string) bool { return strings.Contains(string(text), "\n| `"+field+"`") }
	namespace := func(kind specs.LinuxNamespaceType, path string) node.Edit {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
			if path != "" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
			}
		}
	}
	w := node.New(t)
	for name, tt := range map[string]struct {
		field string
		edit  node.Edit
	}{
		"no program":               {"process.args", func(s *specs.Spec) { s.Process.Args = nil }},
		"the host's root":          {"root.path", func(s *specs.Spec) { s.Root.Path = "/" }},
		"no PID namespace":         {"linux.namespaces", namespace(specs.PIDNamespace, "")},
		"the host's PID namespace": {"linux.namespaces", namespace(specs.PIDNamespace, "/proc/1/ns/pid")},
		"no mount namespace":       {"linux.namespaces", namespace(specs.MountNamespace, "")},
		"another mount namespace":  {"linux.namespaces", namespace(specs.MountNamespace, "/proc/1/ns/mnt")},
		"a network device":         {"linux.netDevices", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }},
		"the host's devices": {"mounts", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/dev", Options: []string{"rbind"}})
		}},
		"all disks": {"linux.resources.devices", func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
			s.Process.Capabilities.Bounding = []string{"CAP_MKNOD"}
		}},
		"an annotation": {"annotations", node.Annotate("openshell.ai/nonsense", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.Container(tt.edit)
			o := w.OCI("create", "--bundle", c.Bundle, c.ID)
			named := strings.Contains(o.Stderr, tt.field) || tt.field == "annotations" && strings.Contains(o.Stderr, "openshell.ai/nonsense")
			if o.Status == 0 || strings.Count(o.Stderr, "\n") != 1 || !named {
				t.Errorf("%s", o)
			}
			if !listed(tt.field) {
				t.Errorf("%s is not in docs/bundles.md", tt.field)
			}
		})
	}
	if left := w.Sandboxes(); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	for _, field := range []string{"process.env", "process.args", "process.noNewPrivileges", "process.capabilities", "linux.seccomp", "mounts"} {
		if !listed(field) {
			t.Errorf("%s is changed, and not in docs/bundles.md", field)
		}
	}
	// CA variables: those of the bundle stay.
	c := w.Container(node.Permissive, func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "SSL_CERT_FILE=/etc/mine.pem") }, node.Args("/bin/env"))
	if o := c.Run(); !strings.Contains(o.Stdout, "\nSSL_CERT_FILE=/etc/mine.pem\n") || !strings.Contains(o.Stdout, "\nNODE_EXTRA_CA_CERTS=/etc/openshell-tls/") {
		t.Errorf("%s", o)
	}
}
