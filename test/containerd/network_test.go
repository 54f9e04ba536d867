// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/fakenet"
)

// podNetwork is what the bridge of a node's pods has. The node forwards it to
// the fake internet, which knows the way back.
const (
	podNetwork = "10.89.0.0/24"
	bridge     = "cni0"
)

func (n *node) cniDir() string { return filepath.Join(n.dir, "cni") }

// writeCNI configures the plugins as a cluster's node has them.
func (n *node) writeCNI(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"cniVersion": "0.4.0", "name": "pods",
		"plugins": []any{
			map[string]any{"type": "bridge", "bridge": bridge, "isGateway": true, "ipam": map[string]any{
				"type": "host-local", "dataDir": filepath.Join(n.dir, "ipam"),
				"ranges": []any{[]any{map[string]string{"subnet": podNetwork}}},
				"routes": []any{map[string]string{"dst": "0.0.0.0/0"}},
			}},
		},
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(n.cniDir(), "10-pods.conflist"), text, 0o600))
	must(t, n.net.DoInternet(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, dst, err := net.ParseCIDR(podNetwork)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: fakenet.OuterAddrs()[0].AsSlice()})
	}))
}

// inNetwork runs f with a handle to the node's network namespace.
func (n *node) inNetwork(t *testing.T, f func(netns.NsHandle) error) {
	t.Helper()
	ns, err := netns.GetFromPath(n.net.Outer())
	must(t, err)
	defer ns.Close()
	must(t, f(ns))
}

// devices lists the node's, but for the bridge, which the plugin keeps.
func (n *node) devices(t *testing.T) (names []string) {
	t.Helper()
	n.inNetwork(t, func(ns netns.NsHandle) error {
		h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		links, err := h.LinkList()
		for _, link := range links {
			if name := link.Attrs().Name; name != bridge {
				names = append(names, name)
			}
		}
		return err
	})
	return names
}

// tables lists the node's nftables rules.
func (n *node) tables(t *testing.T) (names []string) {
	t.Helper()
	n.inNetwork(t, func(ns netns.NsHandle) error {
		conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		for _, table := range tables {
			names = append(names, table.Name)
		}
		return err
	})
	return names
}
