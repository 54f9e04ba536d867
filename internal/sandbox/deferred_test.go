// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy/engine"
)

// plug gives a namespace a card with an address, as an engine does, and returns
// the namespace at the other end.
func plug(t *testing.T, path, name, address string) *netns.Namespace {
	t.Helper()
	container := openNamespace(t, path)
	host, err := netns.New()
	must(t, err)
	t.Cleanup(func() { host.Close() })
	h, err := netlink.NewHandleAt(vnetns.NsHandle(host.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "peer"}, PeerName: name,
		PeerNamespace: netlink.NsFd(container.Fd())}))
	c, err := netlink.NewHandleAt(vnetns.NsHandle(container.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	defer c.Close()
	link, err := c.LinkByName(name)
	must(t, err)
	ip, subnet, err := net.ParseCIDR(address)
	must(t, err)
	must(t, c.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: subnet.Mask}}))
	must(t, c.LinkSetUp(link))
	return host
}

func openNamespace(t *testing.T, path string) *netns.Namespace {
	t.Helper()
	n, err := netns.Open(path)
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lateRequest(t *testing.T, fallback OuterKind) Request {
	r := request(t.TempDir(), "c1")
	r.Outer = Outer{Kind: OuterLate, Fallback: fallback, Placeholders: true}
	return r
}

func noResolver(Container) (Resolver, error) { return Resolver{}, nil }

// startable reports whether openshell-init would start anything in the sandbox.
func startable(s *Sandbox) bool {
	_, err := os.Stat(filepath.Join(s.confineDir(), confine.ConfigName))
	return err == nil
}

func TestLateDevicesAreMovedOutBeforeTheStart(t *testing.T) {
	c := newNode(t)
	r := lateRequest(t, OuterEmpty)
	s := start(t, c, r)
	if startable(s) {
		t.Error("something can be started before the network is complete")
	}
	if err := s.Reload(); err != nil || startable(s) {
		t.Errorf("Reload: %v; startable: %v", err, startable(s))
	}
	plug(t, s.Ready().Inner, "eth0", "10.89.7.2/24")
	for range 2 { // asking again changes nothing
		must(t, CompleteNetwork(t.Context(), c, r.Container.Root, "c1", noResolver))
	}
	inner := openNamespace(t, s.Ready().Inner)
	if left, err := netns.Devices(inner); err != nil || !slices.Equal(left, []string{"eth0"}) || isUp(t, inner, "eth0") {
		t.Errorf("the workload's namespace has %q, %v, and not a placeholder", left, err)
	}
	if moved, err := netns.Devices(s.outer); err != nil || !slices.Equal(moved, []string{"eth0"}) {
		t.Errorf("the outer namespace has %q, %v", moved, err)
	}
	if info := only(t, c); info.Outer != s.outer.ID() || info.Pending {
		t.Errorf("sandbox.json: %+v", info)
	}
	if !startable(s) {
		t.Error("nothing can be started")
	}
	// The engine connects another network, takes it back, and connects it again.
	for range 2 {
		host := plug(t, s.Ready().Inner, "eth1", "10.89.8.2/24")
		eventually(t, "both cards are outside", func() bool {
			moved, err := netns.Devices(s.outer)
			return err == nil && len(moved) == 2
		})
		eventually(t, "the workload has the new address", func() bool { return has(inner, "10.89.8.2") })
		if !has(inner, "10.89.7.2") {
			t.Error("the workload has lost the address that it had")
		}
		unplug(t, inner, "eth1")
		eventually(t, "the card has gone", func() bool {
			left, err := netns.Devices(s.outer)
			return err == nil && slices.Equal(left, []string{"eth0"})
		})
		if left, err := netns.Devices(host); err != nil || len(left) != 0 {
			t.Errorf("at the other end: %q, %v", left, err)
		}
		eventually(t, "the workload has lost the address", func() bool { return !has(inner, "10.89.8.2") })
	}
}

// has reports whether a namespace has an address of its own, which a program can
// bind to.
func has(n *netns.Namespace, addr string) bool {
	own, err := netns.Addresses(n)
	return err == nil && slices.Contains(own, netip.MustParseAddr(addr))
}

func isUp(t *testing.T, n *netns.Namespace, name string) bool {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	link, err := h.LinkByName(name)
	must(t, err)
	return link.Attrs().Flags&net.FlagUp != 0
}

// unplug takes a card out of a namespace, as an engine does.
func unplug(t *testing.T, n *netns.Namespace, name string) {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	link, err := h.LinkByName(name)
	must(t, err)
	must(t, h.LinkDel(link))
}

func TestLateDevicesOfAnEngineThatForgetsThem(t *testing.T) {
	c := newNode(t)
	r := lateRequest(t, OuterEmpty)
	r.Outer.Placeholders = false
	s := start(t, c, r)
	plug(t, s.Ready().Inner, "eth0", "10.89.7.2/24")
	must(t, CompleteNetwork(t.Context(), c, r.Container.Root, "c1", noResolver))
	if left, err := netns.Devices(openNamespace(t, s.Ready().Inner)); err != nil || len(left) != 0 {
		t.Errorf("the workload's namespace has %q, %v", left, err)
	}
}

func TestLateWithoutDevices(t *testing.T) {
	for _, fallback := range []OuterKind{OuterHost, OuterEmpty} {
		c := newNode(t)
		r := lateRequest(t, fallback)
		s := start(t, c, r)
		must(t, CompleteNetwork(t.Context(), c, r.Container.Root, "c1", noResolver))
		home, err := netns.Home()
		must(t, err)
		if isHost := s.outer.ID() == home.ID(); isHost != (fallback == OuterHost) {
			t.Errorf("%s: the host's network: %v", fallback, isHost)
		}
		if !startable(s) {
			t.Errorf("%s: nothing can be started", fallback)
		}
	}
}

func TestAdmissionThatFailsEndsTheSandbox(t *testing.T) {
	c := newNode(t)
	r := lateRequest(t, OuterEmpty)
	s := start(t, c, r)
	bad := func(Container) (Resolver, error) { return Resolver{Servers: []string{"not an address"}}, nil }
	if err := CompleteNetwork(t.Context(), c, r.Container.Root, "c1", bad); err == nil || startable(s) {
		t.Errorf("CompleteNetwork = %v, startable: %v", err, startable(s))
	}
	<-s.Done()
	if err := CompleteNetwork(t.Context(), c, r.Container.Root, "c1", noResolver); err != nil {
		t.Errorf("CompleteNetwork for no sandbox: %v", err)
	}
}

// The engine writes the hosts file while the network is put together.
func TestLateHostsFile(t *testing.T) {
	c := newNode(t)
	writePolicy(t, c, "c1", `
version: 1
network_policies:
  host:
    endpoints: [{ host: host.containers.internal, port: 8080 }]
`)
	r := lateRequest(t, OuterEmpty)
	s := start(t, c, r)
	check := func() error {
		m := s.snapshot().Effective.Connect(engine.Connection{Binary: "/b", Host: "host.containers.internal", Port: 8080})
		return m.CheckAddress(netip.MustParseAddr("169.254.1.2"), 8080)
	}
	if check() == nil {
		t.Error("an address that nobody has named passes")
	}
	must(t, CompleteNetwork(t.Context(), c, r.Container.Root, "c1", func(Container) (Resolver, error) {
		return Resolver{Hosts: "169.254.1.2\thost.containers.internal host.docker.internal\n"}, nil
	}))
	must(t, check())
	must(t, s.Reload())
	must(t, check())
}
