// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Addresses and ports of a sealed namespace. They exist only inside it, so
// every sandbox has the same ones.
var (
	// ProxyAddr4 and ProxyAddr6 are what the sandbox's servers listen on.
	ProxyAddr4 = netip.MustParseAddr("10.200.0.1")
	ProxyAddr6 = netip.MustParseAddr("fd6f:7065:6e73::1")

	// WorkloadAddr4 and WorkloadAddr6 are the workload's own addresses where
	// the outer namespace lends it none.
	WorkloadAddr4 = netip.MustParseAddr("10.200.0.2")
	WorkloadAddr6 = netip.MustParseAddr("fd6f:7065:6e73::2")
)

const (
	// TransparentPort takes every TCP connection that leaves the workload. It
	// lies above the kernel's default ephemeral range, where a workload's own
	// servers are least likely to be.
	TransparentPort = 61001
	// DNSPort takes every DNS query, UDP and TCP.
	DNSPort = 61053
	// ExplicitProxyPort is where clients that are configured for an HTTP proxy
	// find one; the rules bring it to TransparentPort.
	ExplicitProxyPort = 3128
)

// Seal turns a new namespace into a room without a door: the loopback device
// is its only one and the whole address space is local to it (AnyIP), so that
// every connection stays inside and can be taken by the interception rules.
// own are addresses the workload is to see as its own; sealing again with others
// adds them, and Withdraw takes those away that are left over. It reports whether
// IPv6 is available.
func Seal(n *Namespace, own []netip.Addr) (ipv6 bool, err error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("seal network namespace: %w", err)
	}
	defer h.Close()

	lo, err := h.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("seal network namespace: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return false, fmt.Errorf("bring up lo: %w", err)
	}
	own4, own6 := split(own)
	if err := sealFamily(h, lo, own4, ProxyAddr4, WorkloadAddr4); err != nil {
		return false, err
	}
	if err := sealFamily(h, lo, own6, ProxyAddr6, WorkloadAddr6); err != nil {
		// A kernel booted with ipv6.disable=1, or a sysctl, takes the family
		// away; then there is nothing to seal.
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) ||
			errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

// sealFamily gives lo its addresses and routes one family's whole space to it.
// The route names a source address: without one, connections would carry
// their own destination as source.
func sealFamily(h *netlink.Handle, lo netlink.Link, own []netip.Addr, proxy, fallback netip.Addr) error {
	if len(own) == 0 {
		own = []netip.Addr{fallback}
	}
	for _, a := range append([]netip.Addr{proxy}, own...) {
		addr := &netlink.Addr{IPNet: hostNet(a), Flags: unix.IFA_F_NODAD}
		if err := h.AddrAdd(lo, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	everything := &net.IPNet{IP: make(net.IP, proxy.BitLen()/8), Mask: net.CIDRMask(0, proxy.BitLen())}
	route := &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       everything,
		Src:       own[0].AsSlice(),
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     netlink.SCOPE_HOST,
	}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s to lo: %w", everything, err)
	}
	return nil
}

// Withdraw takes addresses away that a sealed namespace was lent. It must have
// been sealed again with those that stay: the kernel removes an IPv4 route with
// its source address.
func Withdraw(n *Namespace, addrs []netip.Addr) error {
	h, err := handle(n)
	if err != nil {
		return fmt.Errorf("withdraw addresses: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("withdraw addresses: %w", err)
	}
	for _, a := range addrs {
		if err := h.AddrDel(lo, &netlink.Addr{IPNet: hostNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take %s from lo: %w", a, err)
		}
	}
	return nil
}

// Addresses returns the global unicast addresses of the namespace's devices
// other than lo: what the engine gave the container.
func Addresses(n *Namespace) ([]netip.Addr, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	defer h.Close()
	list, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}

// Devices returns the names of the namespace's devices other than lo.
func Devices(n *Namespace) ([]string, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []string
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" {
			out = append(out, name)
		}
	}
	return out, nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func split(addrs []netip.Addr) (v4, v6 []netip.Addr) {
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}
