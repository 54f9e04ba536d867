// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/google/nftables"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func everyCapability(s *specs.Spec) {
	var names []string
	for _, name := range []string{"CHOWN", "DAC_OVERRIDE", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "BPF",
		"SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"} {
		names = append(names, "CAP_"+name)
	}
	s.Process.Capabilities = node.CapabilitySets(names)
}

// The rules are not what keeps a workload in: were it able to remove them and to
// set its network up as it likes, it would still reach nothing.
func TestWithoutRulesNothingIsReachable(t *testing.T) {
	t.Parallel()
	for name, network := range map[string]func(*node.World) node.Edit{
		"the host's":   func(*node.World) node.Edit { return func(*specs.Spec) {} },
		"the engine's": func(w *node.World) node.Edit { return node.NetnsPath(w.Net) },
	} {
		t.Run(name, func(t *testing.T) {
			w := node.New(t)
			w.Policy("web", webOnly)
			c := w.Container(network(w), node.Policy("web"), everyCapability).Start()
			node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/before"))
			tearOpen(t, c)
			w.Net.Reset()
			for _, target := range []string{"http://" + fakenet.WebHost + "/", "http://" + w.Net.DNS().Addr().String() + ":53/",
				"http://" + fakenet.OuterAddrs()[0].String() + "/", "http://172.30.45.1/"} {
				if r := c.Client("get", "-t", "1s", target); r.OK && r.Status != http.StatusForbidden {
					t.Errorf("%s: %+v", target, r)
				}
			}
			if r := c.Client("udp", "-t", "1s", w.Net.DNS().String(), "anyone"); r.OK {
				t.Errorf("UDP: %+v", r)
			}
			if r := c.Client("dns", "-t", "1s", "-server", w.Net.DNS().String(), fakenet.WebHost); r.OK && len(r.Answers) > 0 {
				t.Errorf("DNS: %+v", r)
			}
			if got := w.Net.Requests(); len(got) != 0 {
				t.Errorf("the internet saw %+v", got)
			}
			if got := w.Net.Queries(); len(got) != 0 {
				t.Errorf("the name server saw %+v", got)
			}
		})
	}
}

// tearOpen does in the container's network namespace what CAP_NET_ADMIN would
// allow there.
func tearOpen(t *testing.T, c *node.Container) {
	t.Helper()
	ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/ns/net", c.PID()))
	node.Must(t, err)
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	node.Must(t, err)
	conn.FlushRuleset()
	node.Must(t, conn.Flush())
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	node.Must(t, err)
	defer h.Close()
	lo, err := h.LinkByName("lo")
	node.Must(t, err)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 30, 45, 77), Mask: net.CIDRMask(24, 32)}}
	node.Must(t, h.AddrAdd(lo, address))
	_, everything, _ := net.ParseCIDR("0.0.0.0/0")
	node.Must(t, h.RouteDel(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everything, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}))
	node.Must(t, h.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everything, Scope: netlink.SCOPE_LINK}))
}
