// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Loopback brings the loopback device of a namespace up, as low-level runtimes
// do in one that they make.
func Loopback(n *Namespace) error {
	h, err := handle(n)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer h.Close()
	return loopbackUp(h)
}

func loopbackUp(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

func handle(n *Namespace) (*netlink.Handle, error) {
	return netlink.NewHandleAt(vnetns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
}

// Move takes network devices from one namespace to another, with their
// addresses, routes of every table, rules (ip-rule(8)), permanent neighbours and
// settings (/proc/sys/net/ipv[46]/conf), as the kernel takes all of that from a
// device that changes its namespace. Devices that are down stay where they are
// if upOnly is set; so do lo and those named as native, which the kernel puts
// into every namespace. It returns what it moved. Where it fails,
// devices may be in either namespace.
func Move(from, to *Namespace, native []string, upOnly bool) ([]Device, error) {
	moved, err := move(from, to, native, upOnly)
	if err != nil {
		return moved, fmt.Errorf("move network devices: %w", err)
	}
	return moved, nil
}

// Device is a device that was moved.
type Device struct {
	Name  string // where it came from
	Index int    // where it is now
}

func move(from, to *Namespace, native []string, upOnly bool) ([]Device, error) {
	source, err := handle(from)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	target, err := handle(to)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	network, err := readNetwork(from, source, func(l netlink.Link) bool {
		a := l.Attrs()
		return a.Name != "lo" && !slices.Contains(native, a.Name) && (!upOnly || a.Flags&net.FlagUp != 0)
	})
	if err != nil || len(network.devices) == 0 {
		return nil, err
	}
	if err := loopbackUp(target); err != nil {
		return nil, err
	}
	moved, indices := make([]Device, 0, len(network.devices)), map[int]int{}
	for _, d := range network.devices {
		index, err := d.moveTo(to, source, target)
		if err != nil {
			return moved, fmt.Errorf("%s: %w", d.link.Attrs().Name, err)
		}
		indices[d.link.Attrs().Index] = index
		moved = append(moved, Device{d.link.Attrs().Name, index})
	}
	if err := addRoutes(target, network.routes, indices); err != nil {
		return moved, err
	}
	for _, r := range network.rules {
		if err := target.RuleAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			return moved, fmt.Errorf("rule %s: %w", r, err)
		}
	}
	return moved, nil
}

// network is what is known of some devices of a namespace.
type network struct {
	devices []device
	routes  []netlink.Route
	rules   []netlink.Rule
}

type device struct {
	link       netlink.Link
	addresses  []netlink.Addr
	neighbours []netlink.Neigh
	settings   []setting
}

func readNetwork(n *Namespace, h *netlink.Handle, wanted func(netlink.Link) bool) (network, error) {
	var out network
	links, err := h.LinkList()
	if err != nil {
		return out, fmt.Errorf("list devices: %w", err)
	}
	loopback := 0
	for _, l := range links {
		if l.Attrs().Name == "lo" {
			loopback = l.Attrs().Index
		}
		if !wanted(l) {
			continue
		}
		d, err := readDevice(n, h, l)
		if err != nil {
			return out, fmt.Errorf("%s: %w", l.Attrs().Name, err)
		}
		out.devices = append(out.devices, d)
	}
	if len(out.devices) == 0 {
		return out, nil
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		// A filter by table 0 asks for all tables.
		routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return out, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if isConfigured(r, loopback) {
				out.routes = append(out.routes, r)
			}
		}
		rules, err := h.RuleList(family)
		if err != nil {
			return out, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rules {
			if !slices.Contains(kernelRules, r.Priority) {
				r.Family = family
				out.rules = append(out.rules, r)
			}
		}
	}
	return out, nil
}

// kernelRules are the priorities of the rules that every namespace has:
// ip-rule(8).
var kernelRules = []int{0, 32766, 32767}

// isConfigured tells routes that somebody added from those that the kernel
// derives from addresses.
func isConfigured(r netlink.Route, loopback int) bool {
	if r.Protocol == unix.RTPROT_KERNEL || r.Flags&unix.RTM_F_CLONED != 0 {
		return false
	}
	switch r.Type {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return true
	case unix.RTN_UNICAST:
		return r.LinkIndex != loopback || len(r.MultiPath) > 0
	}
	return false
}

func readDevice(n *Namespace, h *netlink.Handle, link netlink.Link) (device, error) {
	d := device{link: link}
	var err error
	if d.addresses, err = h.AddrList(link, netlink.FAMILY_ALL); err != nil {
		return d, fmt.Errorf("list addresses: %w", err)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		for _, list := range []func(int, int) ([]netlink.Neigh, error){h.NeighList, h.NeighProxyList} {
			neighbours, err := list(link.Attrs().Index, family)
			if err != nil {
				return d, fmt.Errorf("list neighbours: %w", err)
			}
			for _, neighbour := range neighbours {
				if neighbour.State&netlink.NUD_PERMANENT != 0 || neighbour.Flags&netlink.NTF_PROXY != 0 {
					d.neighbours = append(d.neighbours, neighbour)
				}
			}
		}
	}
	d.settings, err = readSettings(n, link.Attrs().Name)
	return d, err
}

// moveTo moves the device and gives it its addresses again. It returns the
// device's index in the other namespace.
func (d device) moveTo(to *Namespace, source, target *netlink.Handle) (int, error) {
	name := d.link.Attrs().Name
	err := source.LinkSetNsFd(d.link, to.Fd())
	if errors.Is(err, unix.EEXIST) { // an earlier device has the name there
		if name, err = rename(source, d.link); err == nil {
			err = source.LinkSetNsFd(d.link, to.Fd())
		}
	}
	if err != nil {
		return 0, err
	}
	link, err := target.LinkByName(name)
	if err != nil {
		return 0, err
	}
	if err := writeSettings(to, name, d.settings); err != nil {
		return 0, err
	}
	if d.link.Attrs().Flags&net.FlagUp != 0 {
		if err := target.LinkSetUp(link); err != nil {
			return 0, fmt.Errorf("bring up: %w", err)
		}
	}
	for _, a := range d.addresses {
		if err := addAddress(target, link, a); err != nil {
			return 0, err
		}
	}
	for _, n := range d.neighbours {
		n.LinkIndex = link.Attrs().Index
		if err := target.NeighSet(&n); err != nil {
			return 0, fmt.Errorf("neighbour %s: %w", n.IP, err)
		}
	}
	return link.Attrs().Index, nil
}

// rename gives a device, which has to be down for it, a name that neither
// namespace is likely to have. It returns the name.
func rename(h *netlink.Handle, link netlink.Link) (string, error) {
	name := fmt.Sprintf("openshell%d", link.Attrs().Index)
	if err := h.LinkSetDown(link); err != nil {
		return "", err
	}
	return name, h.LinkSetName(link, name)
}

// addAddress adds an address that was another namespace's. It is not probed for
// again: nothing else had it so far.
func addAddress(h *netlink.Handle, link netlink.Link, a netlink.Addr) error {
	if a.Label != "" && a.Label != link.Attrs().Name {
		a.Label = "" // the kernel insists on the device's name
	}
	a.LinkIndex = link.Attrs().Index
	const states = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_PERMANENT | unix.IFA_F_SECONDARY
	a.Flags = a.Flags&^states | unix.IFA_F_NODAD
	if a.PreferedLft < 0 || a.ValidLft < 0 || uint32(a.ValidLft) == ^uint32(0) {
		a.PreferedLft, a.ValidLft = 0, 0 // for ever
	}
	if err := h.AddrReplace(link, &a); err != nil {
		return fmt.Errorf("address %s: %w", a.IPNet, err)
	}
	return nil
}

// addRoutes adds the routes of moved devices, whose indices have changed. One
// may need another to reach its gateway by: they are tried until none more can
// be added.
func addRoutes(h *netlink.Handle, routes []netlink.Route, indices map[int]int) error {
	var left []netlink.Route
	for _, r := range routes {
		if r, ok := translate(r, indices); ok {
			left = append(left, r)
		}
	}
	slices.SortStableFunc(left, func(a, b netlink.Route) int { return cmp.Compare(hops(a), hops(b)) })
	for len(left) > 0 {
		var failed []netlink.Route
		var lastErr error
		for _, r := range left {
			if err := h.RouteAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
				failed, lastErr = append(failed, r), fmt.Errorf("route %s: %w", r, err)
			}
		}
		if len(failed) == len(left) {
			return lastErr
		}
		left = failed
	}
	return nil
}

// hops is 0 for what is on a link, 1 for what is behind a gateway.
func hops(r netlink.Route) int {
	if r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 {
		return 0
	}
	return 1
}

// translate makes a route one of the other namespace. A route of a device that
// stayed is not.
func translate(r netlink.Route, indices map[int]int) (netlink.Route, bool) {
	r.Flags &= int(netlink.FLAG_ONLINK)
	r.ILinkIndex = 0
	if r.Type != unix.RTN_UNICAST {
		r.LinkIndex = 0
		return r, true
	}
	if len(r.MultiPath) == 0 {
		index, ok := indices[r.LinkIndex]
		r.LinkIndex = index
		return r, ok
	}
	paths := make([]*netlink.NexthopInfo, len(r.MultiPath))
	for i, p := range r.MultiPath {
		hop := *p
		index, ok := indices[hop.LinkIndex]
		if !ok {
			return r, false
		}
		hop.LinkIndex, hop.Flags = index, hop.Flags&int(netlink.FLAG_ONLINK)
		paths[i] = &hop
	}
	r.MultiPath = paths
	return r, true
}

// RemoveDevices deletes the devices that were moved to a namespace, before it is closed: a connection
// whose last bytes nobody acknowledges keeps a namespace, with its devices, for minutes after its last
// descriptor (tcp(7), tcp_orphan_retries). Devices that cannot be deleted go where the kernel puts
// them when the namespace ends.
func RemoveDevices(n *Namespace) error {
	h, err := handle(n)
	if err != nil {
		return fmt.Errorf("remove network devices: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("remove network devices: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			_ = h.LinkDel(l)
		}
	}
	return nil
}
