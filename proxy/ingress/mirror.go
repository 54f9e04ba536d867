// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"openshell.ai/openshell/netns"
)

// mirrorInterval is how often the workload's listeners are looked for. The kernel tells
// nobody of new ones.
const mirrorInterval = 200 * time.Millisecond

// firstEphemeral is where ports begin that the kernel gives to clients (ip_local_port_range): a
// UDP socket without a peer may be either's.
const firstEphemeral = 32768

// Mirror listens in the outer namespace wherever the workload does in the inner one,
// for a container that was to have the outer namespace itself. skip are addresses
// inside that are not the workload's. report is told once of what cannot be had
// outside, such as a port that somebody else has. It returns when ctx ends.
func Mirror(ctx context.Context, outer, inner *netns.Namespace, skip []netip.Addr, limits Limits,
	report func(Publication, error)) error {
	diag, err := netns.NewDiag(inner)
	if err != nil {
		return err
	}
	defer diag.Close()
	m := mirror{outer: outer, inner: inner, limits: limits, report: report, ends: map[Publication]func(){}}
	tick := time.NewTicker(mirrorInterval)
	defer tick.Stop()
	for {
		if tcp, udp, err := diag.Listening(); err == nil {
			m.follow(ctx, wanted(tcp, udp, skip))
		}
		select {
		case <-ctx.Done():
			m.follow(ctx, nil)
			return nil
		case <-tick.C:
		}
	}
}

// mirror is what a Mirror has opened.
type mirror struct {
	outer, inner *netns.Namespace
	limits       Limits
	report       func(Publication, error)
	ends         map[Publication]func()
}

// wanted returns what is to be open outside. An IPv6 socket for any address takes IPv4
// connections too, as a rule.
func wanted(tcp, udp []netip.AddrPort, skip []netip.Addr) map[Publication]bool {
	list := map[Publication]bool{}
	add := func(at netip.AddrPort, udp bool) {
		if slices.Contains(skip, at.Addr()) || at.Port() == 0 || udp && at.Port() >= firstEphemeral {
			return
		}
		list[Publication{Listen: at, Port: at.Port(), UDP: udp}] = true
		if at.Addr() == netip.IPv6Unspecified() {
			list[Publication{Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), Port: at.Port(), UDP: udp}] = true
		}
	}
	for _, at := range tcp {
		add(at, false)
	}
	for _, at := range udp {
		add(at, true)
	}
	return list
}

// follow opens what is wanted and closes what is no longer.
func (m *mirror) follow(ctx context.Context, list map[Publication]bool) {
	for p, end := range m.ends {
		if !list[p] {
			end()
			delete(m.ends, p)
		}
	}
	// Addresses in order, so that the same one is told of where two exclude each other.
	for _, p := range slices.SortedFunc(maps.Keys(list), comparePublications) {
		if m.ends[p] != nil {
			continue
		}
		end, err := m.open(ctx, p)
		if err != nil {
			m.report(p, err)
			end = func() {} // it is not tried again while the workload listens
		}
		m.ends[p] = end
	}
}

func comparePublications(a, b Publication) int { return a.Listen.Compare(b.Listen) }

func (m *mirror) open(ctx context.Context, p Publication) (end func(), err error) {
	r, err := newRelay(m.outer, m.inner, m.limits)
	if err != nil {
		return nil, err
	}
	if err := r.publish(p); err != nil {
		r.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	route := sameDestination
	if p.UDP {
		route = p.route // or its answers would be taken for connections of its own
	}
	r.serve(ctx, route)
	return func() { cancel(); r.Wait() }, nil
}
