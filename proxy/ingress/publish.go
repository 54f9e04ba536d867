// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"openshell.ai/openshell/netns"
)

// Publication is a port of the outer namespace that leads to one on the
// workload's loopback.
type Publication struct {
	Listen netip.AddrPort `json:"listen"`
	Port   uint16         `json:"port"` // inside
	UDP    bool           `json:"udp,omitzero"`
}

// ParsePublication reads [ADDRESS:]PORT:PORT[/tcp|/udp], as docker run --publish
// has it, with IPv6 addresses in brackets. The address is 127.0.0.1 where there
// is none.
func ParsePublication(s string) (Publication, error) {
	fail := func(why string) (Publication, error) {
		return Publication{}, fmt.Errorf("%q: %s; write [ADDRESS:]HOSTPORT:PORT[/udp]", s, why)
	}
	ports, protocol, _ := strings.Cut(s, "/")
	if protocol != "" && protocol != "tcp" && protocol != "udp" || strings.HasSuffix(s, "/") {
		return fail("the protocol is neither tcp nor udp")
	}
	i := strings.LastIndexByte(ports, ':')
	if i < 0 {
		return fail("the port inside is missing")
	}
	port, err := parsePort(ports[i+1:])
	if err != nil {
		return fail(err.Error())
	}
	p := Publication{Port: port, UDP: protocol == "udp"}
	host, addr := ports[:i], loopback(true)
	if j := strings.LastIndexByte(host, ':'); j >= 0 {
		if addr, err = netip.ParseAddr(strings.Trim(host[:j], "[]")); err != nil || addr.Zone() != "" {
			return fail("the address to listen on is not an IP address")
		}
		host = host[j+1:]
	}
	if port, err = parsePort(host); err != nil {
		return fail(err.Error())
	}
	p.Listen = netip.AddrPortFrom(addr.Unmap(), port)
	return p, nil
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, errors.New("a port is a number from 1 to 65535")
	}
	return uint16(port), nil
}

// String is what ParsePublication reads.
func (p Publication) String() string {
	s := fmt.Sprintf("%s:%d", p.Listen, p.Port)
	if p.UDP {
		s += "/udp"
	}
	return s
}

// Publish listens in the outer namespace and carries what comes to the
// workload's loopback, until ctx ends. It listens on all ports or none. The
// limits are each port's.
func Publish(ctx context.Context, outer, inner *netns.Namespace, list []Publication, limits Limits) (relays []*Relay,
	err error) {
	defer func() {
		if err != nil {
			for _, r := range relays {
				r.close()
			}
			relays = nil
		}
	}()
	for _, p := range list {
		r, err := newRelay(outer, inner, limits)
		if err != nil {
			return relays, err
		}
		relays = append(relays, r)
		if err := r.publish(p); err != nil {
			return relays, err
		}
	}
	for i, r := range relays {
		r.serve(ctx, list[i].route)
	}
	return relays, nil
}

func (r *Relay) publish(p Publication) (err error) {
	if p.UDP {
		u, listenErr := r.outer.ListenDatagrams(p.Listen)
		if err = listenErr; err == nil {
			r.sockets = append(r.sockets, u)
		}
	} else {
		_, err = r.listenTCP(p.Listen)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("publish %s: %s is in use by another program", p, p.Listen)
	case err != nil:
		return fmt.Errorf("publish %s: %w", p, err)
	}
	return nil
}

// lead leads to the port on either loopback address.
func (p Publication) route(netip.AddrPort, netip.AddrPort) []hop {
	return []hop{
		{to: netip.AddrPortFrom(loopback(true), p.Port)},
		{to: netip.AddrPortFrom(loopback(false), p.Port)},
	}
}
