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
)

func everyCapability(s *specs.Spec) {
	var names []string
	for _, name := range []string{"CHOWN", "DAC_OVERRIDE", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "BPF",
		"SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"} {
		names = append(names, "CAP_"+name)
	}
	s.Process.Capabilities = capabilitySets(names)
}

// The rules are not what keeps a workload in: were it able to remove them and to
// set its network up as it likes, it would still reach nothing.
func TestWithoutRulesNothingIsReachable(t *testing.T) {
	t.Parallel()
	for name, network := range map[string]func(*world) edit{
		"the host's":   func(*world) edit { return func(*specs.Spec) {} },
		"the engine's": func(w *world) edit { return netnsPath(w.net) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy("web", webOnly)
			c := w.container(network(w), policy("web"), everyCapability).start()
			worked(t, c.client("get", "http://"+fakenet.WebHost+"/before"))
			tearOpen(t, c)
			w.net.Reset()
			for _, target := range []string{"http://" + fakenet.WebHost + "/", "http://" + w.net.DNS().Addr().String() + ":53/",
				"http://" + fakenet.OuterAddrs()[0].String() + "/", "http://172.30.45.1/"} {
				if r := c.client("get", "-t", "1s", target); r.OK && r.Status != http.StatusForbidden {
					t.Errorf("%s: %+v", target, r)
				}
			}
			if r := c.client("udp", "-t", "1s", w.net.DNS().String(), "anyone"); r.OK {
				t.Errorf("UDP: %+v", r)
			}
			if r := c.client("dns", "-t", "1s", "-server", w.net.DNS().String(), fakenet.WebHost); r.OK && len(r.Answers) > 0 {
				t.Errorf("DNS: %+v", r)
			}
			if got := w.net.Requests(); len(got) != 0 {
				t.Errorf("the internet saw %+v", got)
			}
			if got := w.net.Queries(); len(got) != 0 {
				t.Errorf("the name server saw %+v", got)
			}
		})
	}
}

// tearOpen does in the container's network namespace what CAP_NET_ADMIN would
// allow there.
func tearOpen(t *testing.T, c *container) {
	t.Helper()
	ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/ns/net", c.pid()))
	must(t, err)
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	lo, err := h.LinkByName("lo")
	must(t, err)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 30, 45, 77), Mask: net.CIDRMask(24, 32)}}
	must(t, h.AddrAdd(lo, address))
	_, everything, _ := net.ParseCIDR("0.0.0.0/0")
	must(t, h.RouteDel(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everything, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}))
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everything, Scope: netlink.SCOPE_LINK}))
}
