// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FollowGateway makes the IPv4 gateway that somebody has set in a sealed namespace
// that of the outer one, where the devices are. docker does so when a container's
// networks change; because every address is local to lo, its route becomes one of
// lo's, and means nothing. The kernel has no such routes for IPv6. It does nothing
// where there is no such gateway, or no device of the outer namespace reaches it.
func FollowGateway(sealed, outer *Namespace) error {
	err := followGateway(sealed, outer)
	if err != nil {
		return fmt.Errorf("follow the gateway: %w", err)
	}
	return nil
}

func followGateway(sealed, outer *Namespace) error {
	from, err := handle(sealed)
	if err != nil {
		return err
	}
	defer from.Close()
	asked, err := defaultRoutes(from)
	if err != nil || len(asked) == 0 {
		return err
	}
	to, err := handle(outer)
	if err != nil {
		return err
	}
	defer to.Close()
	gateway := asked[0].Gw
	now, err := defaultRoutes(to)
	if err != nil || len(now) > 0 && now[0].Gw.Equal(gateway) {
		return err
	}
	ways, err := to.RouteGet(gateway)
	if errors.Is(err, unix.ENETUNREACH) || err == nil && (len(ways) == 0 || ways[0].Gw != nil) {
		return nil // the device is still to come, or has gone
	}
	if err != nil {
		return err
	}
	return to.RouteReplace(&netlink.Route{LinkIndex: ways[0].LinkIndex, Gw: gateway, Dst: anywhere4})
}

var anywhere4 = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}

// defaultRoutes returns the IPv4 default routes through a gateway, the preferred
// first.
func defaultRoutes(h *netlink.Handle) ([]netlink.Route, error) {
	routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netlink.Route
	for _, r := range routes {
		if ones, _ := size(r.Dst); ones == 0 && r.Gw != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

func size(n *net.IPNet) (ones, bits int) {
	if n == nil {
		return 0, 0
	}
	return n.Mask.Size()
}
