// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come, on a machine that is
// busy with other things: namespaces are taken down one after the other.
const patience = time.Minute

// plumbed returns a namespace as an engine leaves it, with a card, and the
// namespace at the other end of the wire.
func plumbed(t *testing.T) (container, host *Namespace) {
	t.Helper()
	container, host = newNamespace(t), newNamespace(t)
	if err := Loopback(container); err != nil {
		t.Fatal(err)
	}
	wire(t, container, host, "eth0", 2)
	c := open(t, container)
	eth0 := linkOf(t, c, "eth0")
	_, subnet, _ := net.ParseCIDR("192.168.77.0/24")
	for _, r := range []*netlink.Route{
		{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP("10.89.2.1")},
		{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP("fd89:2::1")},
		{LinkIndex: eth0.Attrs().Index, Dst: subnet, Gw: net.ParseIP("10.89.2.9"), Table: 100, MTU: 1300},
		{Dst: &net.IPNet{IP: net.IP{203, 0, 113, 0}, Mask: net.CIDRMask(24, 32)}, Type: unix.RTN_BLACKHOLE},
	} {
		must(t, c.RouteAdd(r))
	}
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Priority = &net.IPNet{IP: net.IP{10, 89, 2, 2}, Mask: net.CIDRMask(32, 32)}, 100, 5000
	must(t, c.RuleAdd(rule))
	mac, _ := net.ParseMAC("02:42:0a:59:02:09")
	must(t, c.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP("10.89.2.9"), HardwareAddr: mac}))
	must(t, container.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_ra", []byte("0"), 0)
	}))
	return container, host
}

// wire joins two namespaces by a network of its own, in which the container is
// number 2 and the host number 1.
func wire(t *testing.T, container, host *Namespace, name string, network int) {
	t.Helper()
	h, c := open(t, host), open(t, container)
	peer := fmt.Sprintf("veth%d", network)
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: peer, MTU: 1420}, PeerName: name,
		PeerNamespace: netlink.NsFd(container.Fd())}))
	for _, end := range []struct {
		h      *netlink.Handle
		link   netlink.Link
		number int
	}{{h, linkOf(t, h, peer), 1}, {c, linkOf(t, c, name), 2}} {
		must(t, end.h.LinkSetMTU(end.link, 1420))
		for _, format := range []string{"10.89.%d.%d/24", "fd89:%d::%d/64"} {
			ip, n, err := net.ParseCIDR(fmt.Sprintf(format, network, end.number))
			must(t, err)
			must(t, end.h.AddrAdd(end.link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask}, Flags: unix.IFA_F_NODAD}))
		}
		must(t, end.h.LinkSetUp(end.link))
	}
}

func newNamespace(t *testing.T) *Namespace {
	t.Helper()
	n, err := New()
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

func open(t *testing.T, n *Namespace) *netlink.Handle {
	t.Helper()
	h, err := handle(n)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func linkOf(t *testing.T, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// described lists what a namespace's network consists of, in an order and
// without indices.
func described(t *testing.T, n *Namespace) (out []string) {
	t.Helper()
	h := open(t, n)
	network, err := readNetwork(n, h, func(l netlink.Link) bool { return l.Attrs().Name != "lo" })
	must(t, err)
	names := map[int]string{}
	for _, d := range network.devices {
		a := d.link.Attrs()
		names[a.Index] = a.Name
		out = append(out, fmt.Sprintf("%s mtu %d mac %s up %v", a.Name, a.MTU, a.HardwareAddr, a.Flags&net.FlagUp != 0))
		for _, addr := range d.addresses {
			if !addr.IP.IsLinkLocalUnicast() {
				out = append(out, fmt.Sprintf("%s %s scope %d broadcast %s", a.Name, addr.IPNet, addr.Scope, addr.Broadcast))
			}
		}
		for _, neigh := range d.neighbours {
			out = append(out, fmt.Sprintf("%s neighbour %s %s %d", a.Name, neigh.IP, neigh.HardwareAddr, neigh.State))
		}
		for _, s := range d.settings {
			out = append(out, fmt.Sprintf("%s %s/%s=%s", a.Name, s.dir, s.name, s.value))
		}
	}
	for _, r := range network.routes {
		out = append(out, fmt.Sprintf("%s route %v via %v table %d type %d mtu %d scope %d", names[r.LinkIndex], r.Dst, r.Gw, r.Table, r.Type, r.MTU, r.Scope))
	}
	for _, r := range network.rules {
		out = append(out, fmt.Sprintf("rule %v table %d priority %d", r.Src, r.Table, r.Priority))
	}
	slices.Sort(out)
	return out
}

func TestMoveTakesTheWholeNetworkAlong(t *testing.T) {
	inner, host := plumbed(t)
	outer := newNamespace(t)
	want := described(t, inner)
	moved, err := Move(inner, outer, nil, false)
	if err != nil || len(moved) != 1 || moved[0].Name != "eth0" {
		t.Fatalf("Move = %v, %v", moved, err)
	}
	got := described(t, outer)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing after the move: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("new after the move: %s", line)
		}
	}
	if left, err := Devices(inner); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	for _, addr := range []string{"10.89.2.1:80", "[fd89:2::1]:80"} {
		reaches(t, outer, host, netip.MustParseAddrPort(addr))
	}
	if again, err := Move(inner, outer, nil, false); err != nil || len(again) != 0 {
		t.Errorf("a second Move = %v, %v", again, err)
	}
}

func reaches(t *testing.T, from, to *Namespace, addr netip.AddrPort) {
	t.Helper()
	l, err := to.Listen(addr)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	defer client.Close()
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	echo(t, client, server)
}

func TestMoveOfSecondDevice(t *testing.T) {
	inner, host := plumbed(t)
	outer := newNamespace(t)
	_, err := Move(inner, outer, nil, false)
	must(t, err)
	wire(t, inner, host, "eth0", 3) // the name is free again
	_, err = Move(inner, outer, nil, false)
	must(t, err)
	for _, addr := range []string{"10.89.2.1:80", "10.89.3.1:80", "[fd89:3::1]:80"} {
		reaches(t, outer, host, netip.MustParseAddrPort(addr))
	}
}

func TestMoveLeavesWhatIsNotAskedFor(t *testing.T) {
	inner, _ := plumbed(t)
	outer := newNamespace(t)
	h := open(t, inner)
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "tunl0"}, PeerName: "unfinished"}))
	must(t, h.LinkSetUp(linkOf(t, h, "tunl0")))
	moved, err := Move(inner, outer, []string{"tunl0"}, true)
	if err != nil || len(moved) != 1 || moved[0].Name != "eth0" {
		t.Errorf("Move = %v, %v", moved, err)
	}
	left, err := Devices(inner)
	slices.Sort(left)
	if err != nil || !slices.Equal(left, []string{"tunl0", "unfinished"}) {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestDevicesEndWithTheOuterNamespace(t *testing.T) {
	inner, host := plumbed(t)
	outer, err := New()
	must(t, err)
	_, err = Move(inner, outer, nil, false)
	must(t, err)
	outer.Close()
	deadline := time.Now().Add(patience)
	for {
		left, err := Devices(host)
		must(t, err)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the host's end of the wire outlives the sandbox: %q", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWatchTellsOfALateDevice(t *testing.T) {
	inner, host := newNamespace(t), newNamespace(t)
	w, err := Watch(inner)
	must(t, err)
	raw, err := w.conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("nothing has changed, and the kernel tells of it: %d, %v", n, err)
		}
	}))
	changed := make(chan error, 1)
	go func() { changed <- w.Changed(50 * time.Millisecond) }()
	wire(t, inner, host, "eth1", 4)
	select {
	case err := <-changed:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("a new device goes unnoticed")
	}
	go func() { changed <- w.Changed(time.Hour) }()
	must(t, w.Close())
	select {
	case err := <-changed:
		if err == nil || err == io.EOF {
			t.Errorf("Changed after Close returns %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not end the watch")
	}
}

func BenchmarkMove(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		inner, err := New()
		if err != nil {
			b.Fatal(err)
		}
		outer, err := New()
		if err != nil {
			b.Fatal(err)
		}
		h, err := handle(inner)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1"}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := Move(inner, outer, nil, false); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		h.Close()
		inner.Close()
		outer.Close()
		b.StartTimer()
	}
}

// A connection that the other side no longer answers keeps its namespace from ending, but not the
// engine's device, whose other end the engine waits for.
func TestRemoveDevices(t *testing.T) {
	inner, host := plumbed(t)
	outer := newNamespace(t)
	_, err := Move(inner, outer, nil, false)
	must(t, err)
	h := open(t, host)
	l, err := host.Listen(netip.MustParseAddrPort("10.89.2.1:80"))
	must(t, err)
	defer l.Close()
	client, err := outer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.89.2.1:80"))
	must(t, err)
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	must(t, h.LinkSetDown(linkOf(t, h, "veth2")))
	_, err = client.Write([]byte("nobody takes this"))
	must(t, err)
	must(t, client.Close())

	must(t, RemoveDevices(outer))
	must(t, outer.Close())
	if left, err := Devices(host); err != nil || slices.Contains(left, "veth2") {
		t.Errorf("left: %q, %v", left, err)
	}
}
