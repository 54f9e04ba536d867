// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/netns"
)

// maxAssociations bounds the pairs of ends that datagrams pass between: each
// has two sockets and two buffers.
const maxAssociations = 1024

// association is the UDP datagrams between a client and one address and port
// that it sends to.
type association struct {
	*netns.Association
	r       *Relay
	outside atomic.Pointer[net.UDPConn] // to the client
}

// take takes the datagrams of one socket until it is closed. Where there are too
// many associations, new ones get nothing, as on a host that is overwhelmed.
func (r *Relay) take(ctx context.Context, u *net.UDPConn, route routeFunc) {
	netns.TakeDatagrams(u, func(d netns.Datagram) {
		a, ok := r.datagrams.Get(d.Ends, func(open int) (*association, bool) {
			if open >= r.maxDatagrams {
				return nil, false
			}
			a := &association{Association: netns.NewAssociation(d.Ends), r: r}
			r.running.Go(func() {
				crash.Contain("inbound datagrams", func() { a.run(ctx, route(d.Source, d.Destination)) })
			})
			return a, true
		})
		if ok {
			a.Add(d.Payload)
		}
	})
}

// run carries an association to its end.
func (a *association) run(ctx context.Context, hops []hop) {
	defer a.r.datagrams.End(a.Ends)
	first := a.Next(ctx)
	if first == nil {
		return
	}
	inside, err := dialFirst(hops, a.r.enter)
	if err != nil {
		a.unreachable(first)
		return
	}
	outside, err := a.r.outer.DatagramsBetween(a.Destination, a.Source)
	if err != nil {
		inside.Close()
		slog.Warn("answer inbound datagrams", "error", err)
		return
	}
	a.outside.Store(outside)
	a.Silence = a.r.idle
	a.Write(inside, first)
	a.Relay(ctx, outside, inside)
	if a.Refused.Load() {
		a.unreachable(first)
	}
}

// Answer passes on what the workload sends to a client who has asked the same port
// of another of the workload's own addresses, and reports whether that is so. A
// program that listens on any address answers from the one that the kernel chooses,
// and the client expects the one that it has asked.
func (r *Relay) Answer(d netns.Datagram) bool {
	own := r.own.Load()
	if own == nil {
		return false
	}
	for _, addr := range *own {
		asked := netns.Ends{Source: d.Destination, Destination: netip.AddrPortFrom(addr, d.Source.Port())}
		a, ok := r.datagrams.Find(asked)
		if !ok {
			continue
		}
		if outside := a.outside.Load(); outside != nil {
			a.Write(outside, d.Payload)
		}
		return true
	}
	return false
}

// enter opens a socket to a program inside that has one for the leg's
// destination: without one, only the first datagram's loss would tell.
func (r *Relay) enter(h hop) (net.Conn, error) {
	if _, err := r.diag.UDPInodes(h.to, h.from); err != nil {
		return nil, err
	}
	if !h.from.IsValid() {
		return r.inner.DialUnintercepted(context.Background(), "udp", h.to)
	}
	return r.inner.DatagramsInto(h.from, h.to)
}

// unreachable tells the client that nobody is there.
func (a *association) unreachable(payload []byte) {
	_ = a.r.outer.Unreachable(netns.Datagram{Ends: a.Ends, Payload: payload}) // It may be lost, as any datagram.
}
