// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const linkName = "eth0"

// The two ends of the veth pair. They are private addresses, as an engine's
// bridge would give.
var (
	outerAddrs    = []netip.Prefix{netip.MustParsePrefix("172.30.45.2/24"), netip.MustParsePrefix("fd45:beef::2/64")}
	internetAddrs = []netip.Prefix{netip.MustParsePrefix("172.30.45.1/24"), netip.MustParsePrefix("fd45:beef::1/64")}
)

// OuterAddrs returns the addresses of the outer namespace's card, IPv4 first.
func OuterAddrs() []netip.Addr {
	return []netip.Addr{outerAddrs[0].Addr(), outerAddrs[1].Addr()}
}

// namespaces are the two network namespaces, held open by their descriptors.
type namespaces struct {
	outer, internet netns.NsHandle
}

func newNamespaces() (*namespaces, error) {
	s := &namespaces{outer: netns.None(), internet: netns.None()}
	if err := s.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the network namespaces (needs root): %w", err), s.Close())
	}
	if err := s.connect(); err != nil {
		return nil, errors.Join(fmt.Errorf("join the network namespaces: %w", err), s.Close())
	}
	return s, nil
}

// create unshares twice on one thread and puts that thread back where it was.
func (s *namespaces) create() error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	return runIn(home, func() (err error) {
		if s.outer, err = netns.New(); err != nil {
			return err
		}
		s.internet, err = netns.New()
		return err
	})
}

func (s *namespaces) connect() error {
	outer, err := netlink.NewHandleAt(s.outer, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer outer.Close()
	internet, err := netlink.NewHandleAt(s.internet, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer internet.Close()

	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: linkName},
		PeerName:      linkName,
		PeerNamespace: netlink.NsFd(s.internet),
	}
	if err := outer.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := bringUp(outer, outerAddrs); err != nil {
		return err
	}
	if err := bringUp(internet, internetAddrs); err != nil {
		return err
	}
	if err := introduce(outer, internet, internetAddrs); err != nil {
		return err
	}
	if err := introduce(internet, outer, outerAddrs); err != nil {
		return err
	}
	if err := addDefaultRoutes(outer); err != nil {
		return err
	}
	return ownEveryAddress(internet)
}

func bringUp(h *netlink.Handle, addrs []netip.Prefix) error {
	for _, name := range []string{"lo", linkName} {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		for _, prefix := range addrs {
			addr := &netlink.Addr{IPNet: ipNet(prefix)}
			if prefix.Addr().Is6() {
				// Without this the address is unusable for a second of
				// duplicate address detection.
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := h.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add %s to %s: %w", prefix, name, err)
			}
		}
	}
	return nil
}

// introduce tells h the link address of its peer. Left to itself it would ask,
// and while a new address joins its solicited-node group, which the kernel does
// some time later, the first question goes unheard for a second.
func introduce(h, peer *netlink.Handle, peerAddrs []netip.Prefix) error {
	own, err := h.LinkByName(linkName)
	if err != nil {
		return err
	}
	other, err := peer.LinkByName(linkName)
	if err != nil {
		return err
	}
	for _, prefix := range peerAddrs {
		neighbour := &netlink.Neigh{
			LinkIndex:    own.Attrs().Index,
			State:        netlink.NUD_PERMANENT,
			IP:           prefix.Addr().AsSlice(),
			HardwareAddr: other.Attrs().HardwareAddr,
		}
		if err := h.NeighSet(neighbour); err != nil {
			return fmt.Errorf("set the neighbour %s: %w", prefix.Addr(), err)
		}
	}
	return nil
}

func addDefaultRoutes(h *netlink.Handle) error {
	link, err := h.LinkByName(linkName)
	if err != nil {
		return err
	}
	for i, dst := range everything {
		gateway := internetAddrs[i].Addr()
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Gw: gateway.AsSlice()}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("add route to %s via %s: %w", dst, gateway, err)
		}
	}
	return nil
}

// ownEveryAddress makes the namespace answer for every address there is (AnyIP).
// The routes are in the main table, not the local one, so that the link's own
// prefix, which is longer, still leads back to the outer namespace.
func ownEveryAddress(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, dst := range everything {
		route := &netlink.Route{
			LinkIndex: lo.Attrs().Index,
			Dst:       ipNet(dst),
			Type:      unix.RTN_LOCAL,
			Scope:     netlink.SCOPE_HOST,
			Table:     unix.RT_TABLE_MAIN,
		}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("add local route for %s: %w", dst, err)
		}
	}
	for _, addr := range hosts[BlackholeHost] {
		route := &netlink.Route{Dst: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Type: unix.RTN_BLACKHOLE}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("add blackhole route for %s: %w", addr, err)
		}
	}
	return nil
}

var everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (s *namespaces) outerPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(s.outer))
}

func (s *namespaces) Close() error {
	var errs []error
	for _, ns := range []*netns.NsHandle{&s.outer, &s.internet} {
		if ns.IsOpen() {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

// runIn runs f on the calling goroutine's thread, switched to ns meanwhile.
func runIn(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	// Deferred, so that a test's FailNow inside f comes back too.
	defer func() {
		if err := netns.Set(home); err != nil {
			// Going on would run unrelated code in the wrong network.
			panic(fmt.Sprintf("leave the network namespace: %v", err))
		}
	}()
	return f()
}
