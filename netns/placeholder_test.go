// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
)

// moved returns a plumbed namespace whose card has been moved to another, and what
// stands in for it.
func moved(t *testing.T) (inner, outer, host *Namespace, s *Placeholders) {
	t.Helper()
	inner, host = plumbed(t)
	outer = newNamespace(t)
	devices, err := Move(inner, outer, nil, false)
	must(t, err)
	s = NewPlaceholders(inner, outer, newNamespace(t))
	t.Cleanup(func() { s.Close() })
	must(t, s.Add(devices))
	return inner, outer, host, s
}

func TestPlaceholderLooksLikeTheDevice(t *testing.T) {
	inner, outer, host, s := moved(t)
	in, out := linkOf(t, open(t, inner), "eth0"), linkOf(t, open(t, outer), "eth0")
	if a, b := in.Attrs(), out.Attrs(); a.HardwareAddr.String() != b.HardwareAddr.String() || a.MTU != b.MTU || a.Flags&net.FlagUp != 0 {
		t.Errorf("%+v stands in for %+v", a, b)
	}
	if list, err := open(t, inner).AddrList(in, netlink.FAMILY_ALL); err != nil || len(list) != 0 {
		t.Errorf("addresses %v, %v", list, err)
	}
	reaches(t, outer, host, netip.MustParseAddrPort("10.89.2.1:80"))
	if n, err := s.Follow(); n != 0 || err != nil {
		t.Errorf("Follow = %d, %v", n, err)
	}
	if again, err := Move(inner, outer, nil, true); err != nil || len(again) != 0 {
		t.Errorf("the placeholder was moved: %v, %v", again, err)
	}
}

// What libnetwork does on docker network disconnect: it takes the link down, gives
// it its old name, moves it to the host's namespace and deletes it there.
func TestDeviceGoesWithItsStandIn(t *testing.T) {
	inner, outer, host, s := moved(t)
	engine, at := open(t, host), open(t, inner)
	link := linkOf(t, at, "eth0")
	must(t, at.LinkSetDown(link))
	must(t, at.LinkSetName(link, "vethabc"))
	must(t, at.LinkSetNsFd(link, host.Fd()))
	if n, err := s.Follow(); n != 1 || err != nil {
		t.Fatalf("Follow = %d, %v", n, err)
	}
	must(t, engine.LinkDel(linkOf(t, engine, "vethabc")))
	for name, n := range map[string]*Namespace{"inner": inner, "outer": outer, "host": host, "nowhere": s.unrouted} {
		if left, err := Devices(n); err != nil || len(left) != 0 {
			t.Errorf("%s: %q, %v", name, left, err)
		}
	}
	// The name is free for another.
	wire(t, inner, host, "eth0", 2)
	devices, err := Move(inner, outer, s.Names(), true)
	must(t, err)
	must(t, s.Add(devices))
	if !slices.Equal(s.Names(), []string{"eth0"}) {
		t.Errorf("placeholders %q", s.Names())
	}
	reaches(t, outer, host, netip.MustParseAddrPort("10.89.2.1:80"))
}

// The engine may have deleted its end of the wire, and so ours.
func TestDeviceThatHasGoneBeforeItsStandIn(t *testing.T) {
	inner, outer, host, s := moved(t)
	h, at := open(t, host), open(t, inner)
	must(t, h.LinkDel(linkOf(t, h, "veth2")))
	must(t, at.LinkDel(linkOf(t, at, "eth0")))
	if n, err := s.Follow(); n != 1 || err != nil {
		t.Errorf("Follow = %d, %v", n, err)
	}
	if left, err := Devices(outer); err != nil || len(left) != 0 {
		t.Errorf("outer: %q, %v", left, err)
	}
}

func TestPlaceholdersEndWithTheSandbox(t *testing.T) {
	inner, _, _, s := moved(t)
	must(t, s.Close())
	deadline := time.Now().Add(patience)
	for {
		left, err := Devices(inner)
		must(t, err)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %q", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFollowGateway(t *testing.T) {
	inner, outer, host, s := moved(t)
	wire(t, inner, host, "eth1", 3)
	_, err := Seal(inner, nil)
	must(t, err)
	h, out := open(t, inner), open(t, outer)
	gateway := func() string {
		routes, err := defaultRoutes(out)
		must(t, err)
		if len(routes) != 1 {
			return ""
		}
		return routes[0].Gw.String()
	}
	follow := func(want string) {
		t.Helper()
		must(t, FollowGateway(inner, outer))
		if got := gateway(); got != want {
			t.Errorf("the gateway is %s, not %s", got, want)
		}
	}
	follow("10.89.2.1")
	lo := linkOf(t, h, "lo").Attrs().Index
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: lo, Gw: net.ParseIP("10.89.3.1")}))
	follow("10.89.2.1") // its device is not there yet
	_, err = Move(inner, outer, s.Names(), true)
	must(t, err)
	follow("10.89.3.1")
	must(t, out.LinkDel(linkOf(t, out, "eth0")))
	follow("10.89.3.1")
	reaches(t, outer, host, netip.MustParseAddrPort("10.89.3.1:80"))
}

func TestWithdraw(t *testing.T) {
	first, second := netip.MustParseAddr("10.89.2.2"), netip.MustParseAddr("10.89.3.2")
	first6, second6 := netip.MustParseAddr("fd89:2::2"), netip.MustParseAddr("fd89:3::2")
	n := sealed(t, first, first6)
	steps := []struct {
		own, gone  []netip.Addr
		seen, none []string
	}{
		{[]netip.Addr{second, second6}, []netip.Addr{first, first6}, []string{"10.89.3.2", "fd89:3::2"}, []string{"10.89.2.2", "fd89:2::2"}},
		{nil, []netip.Addr{second, second6}, []string{WorkloadAddr4.String(), WorkloadAddr6.String()}, []string{"10.89.3.2", "fd89:3::2"}},
	}
	for _, step := range steps {
		_, err := Seal(n, step.own)
		must(t, err)
		must(t, Withdraw(n, step.gone))
		must(t, Withdraw(n, step.gone)) // it has gone already
		must(t, Intercept(n, step.own))
		var has []string
		h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()))
		must(t, err)
		list, err := h.AddrList(linkOf(t, h, "lo"), netlink.FAMILY_ALL)
		h.Close()
		must(t, err)
		for _, a := range list {
			has = append(has, a.IP.String())
		}
		for _, a := range step.seen {
			if !slices.Contains(has, a) {
				t.Errorf("%s is missing in %q", a, has)
			}
		}
		for _, a := range step.none {
			if slices.Contains(has, a) {
				t.Errorf("%s is left in %q", a, has)
			}
		}
		// The whole address space is still local, and connections have a source.
		for proxy, to := range map[netip.Addr]string{ProxyAddr4: "93.184.216.34:80", ProxyAddr6: "[2606:2800:220:1::1]:80"} {
			l, err := n.Listen(netip.AddrPortFrom(proxy, TransparentPort))
			must(t, err)
			c, err := n.Dial(t.Context(), "tcp", netip.MustParseAddrPort(to))
			must(t, err)
			if from := c.LocalAddr().(*net.TCPAddr).IP.String(); !slices.Contains(step.seen, from) {
				t.Errorf("%s is reached from %s", to, from)
			}
			c.Close()
			l.Close()
		}
	}
}
