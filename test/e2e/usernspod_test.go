// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// A pod with a user namespace (hostUsers: false) has no network namespace of the engine's: the low-level runtime makes
// it with the first container, and the engine puts its device there before the start. So does docker with userns-remap.
// The pod's containers join both namespaces.
func TestPodWithAUserNamespace(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/user namespaces")
	w := node.New(t)
	const server, own = "10.89.7.1", "10.89.7.2"
	w.Policy("pod", "version: 1\nnetwork_policies:\n  s: {endpoints: [{host: "+server+", port: 80}]}\n")
	pause := w.Container(node.Policy("pod"), node.UserNamespace("")).Shift()
	pause.Create()
	inner := fmt.Sprintf("/proc/%d/ns/net", pause.PID())
	outside := plugIn(t, inner, own+"/24", server+"/24")
	l, err := outside.Listen(netip.MustParseAddrPort(server + ":80"))
	node.Must(t, err)
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(rw, "from "+host)
	}))
	pause.LetGo()
	if r := pause.Client("get", "http://"+server+"/"); r.Body != "from "+own {
		t.Errorf("the first container: %+v", r)
	}

	c := w.Container(node.UserNamespace(fmt.Sprintf("/proc/%d/ns/user", pause.PID())), func(s *specs.Spec) {
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = inner
			}
		}
	}).Shift().Start()
	if r := c.Client("get", "http://"+server+"/"); r.Body != "from "+own {
		t.Errorf("another container: %+v", r)
	}
	if r := c.Client("get", "http://"+server+":81/"); r.Status == 200 {
		t.Errorf("another port: %+v", r)
	}
	if o := c.Exec("/bin/ls", "/sys/class/net"); o.Status != 0 {
		t.Errorf("sysfs: %s", o)
	}
}

// plugIn puts a device into a network namespace, as an engine does, and returns the namespace at its other end.
func plugIn(t *testing.T, path, address, peer string) *netns.Namespace {
	t.Helper()
	inside, err := netns.Open(path)
	node.Must(t, err)
	defer inside.Close()
	outside, err := netns.New()
	node.Must(t, err)
	t.Cleanup(func() { outside.Close() })
	handle := func(n *netns.Namespace) *netlink.Handle {
		h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
		node.Must(t, err)
		t.Cleanup(h.Close)
		return h
	}
	up := func(h *netlink.Handle, name, address string) {
		link, err := h.LinkByName(name)
		node.Must(t, err)
		addr, err := netlink.ParseAddr(address)
		node.Must(t, err)
		node.Must(t, h.AddrAdd(link, addr))
		node.Must(t, h.LinkSetUp(link))
	}
	h := handle(outside)
	node.Must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "peer"}, PeerName: "eth0",
		PeerNamespace: netlink.NsFd(inside.Fd())}))
	up(h, "peer", peer)
	up(handle(inside), "eth0", address)
	return outside
}
