// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/policy/engine"
)

// Every container of a pod has its hosts file honoured, as far as they agree.
func TestHostsFilesOfSeveralContainers(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	writePolicy(t, c, "c1", `
version: 1
network_policies:
  host:
    endpoints: [{ host: host.containers.internal, port: 8080 }]
`)
	outer := Outer{Kind: OuterPath, Path: namespaceFile(t)}
	first := request(root, "c1")
	first.Policy, first.Outer = "c1", outer
	first.DNS = Resolver{Hosts: "10.1.0.1 db shared\n", HostsFile: rootfs.ID{Dev: 1, Ino: 1}}
	s := start(t, c, first)
	reachesHost := func() error {
		m := s.snapshot().Effective.Connect(engine.Connection{Binary: "/b", Host: "host.containers.internal", Port: 8080})
		return m.CheckAddress(netip.MustParseAddr("169.254.1.2"), 8080)
	}
	if reachesHost() == nil {
		t.Error("an address that nobody has named passes")
	}
	join := func(id string, file rootfs.ID, text string) {
		t.Helper()
		r := request(root, id)
		r.Outer, r.DNS = outer, Resolver{Hosts: text, HostsFile: file}
		_, err := Open(t.Context(), c, r, inProcess(t))
		must(t, err)
	}
	join("c2", rootfs.ID{Dev: 1, Ino: 2}, "10.1.0.1 db\n10.6.6.6 shared\n10.1.0.3 queue\n169.254.1.2 host.containers.internal\n")
	join("c3", rootfs.ID{Dev: 1, Ino: 1}, "10.6.6.6 written-by-the-first\n")
	join("c4", rootfs.ID{Dev: 1, Ino: 2}, "10.6.6.6 written-by-the-second\n")
	join("c5", rootfs.ID{}, "10.6.6.6 of-unknown-origin\n")
	for name, want := range map[string]string{
		"db": "[10.1.0.1]", "shared": "[10.1.0.1]", "queue": "[10.1.0.3]",
		"written-by-the-first": "[]", "written-by-the-second": "[]", "of-unknown-origin": "[]",
	} {
		if got := fmt.Sprint(s.hosts.Addresses(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	must(t, reachesHost())
	must(t, s.Reload())
	must(t, reachesHost())
	eventually(t, "the contradiction is on record", func() bool {
		return strings.Contains(logOf(t, s), "the hosts file of container c2 has other addresses for shared than an earlier container's")
	})
	if strings.Count(logOf(t, s), "other addresses") != 1 {
		t.Errorf("the log: %s", logOf(t, s))
	}
}
