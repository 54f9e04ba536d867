// SPDX-License-Identifier: Apache-2.0

// Package ingress owns what comes into a sandbox: it takes the TCP connections
// and UDP datagrams that arrive in the outer namespace for the container's
// addresses, or at a port of the host that the user published, and carries them
// to the workload. Whom to let in is the engine's decision, by what it publishes
// and its network policies, or the user's; this package makes none.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openshell.ai/openshell/netns"
)

// Relay carries what arrives for one sandbox.
type Relay struct {
	outer, inner *netns.Namespace
	diag         *netns.Diag // of inner
	ports        netns.IngressPorts
	listeners    []*net.TCPListener
	sockets      []*net.UDPConn
	slots        chan struct{} // one for each connection that may be open
	running      sync.WaitGroup
	datagrams    netns.Associations[*association]
	maxDatagrams int                          // of associations
	idle         time.Duration                // see Limits
	own          atomic.Pointer[[]netip.Addr] // what the rules bring here; nil for published ports
}

// Limits bound what a relay carries.
type Limits struct {
	Connections int           // at once
	Idle        time.Duration // how long one may carry nothing; 0: for ever
}

func newRelay(outer, inner *netns.Namespace, limits Limits) (*Relay, error) {
	diag, err := netns.NewDiag(inner)
	if err != nil {
		return nil, err
	}
	return &Relay{outer: outer, inner: inner, diag: diag, slots: make(chan struct{}, limits.Connections),
		maxDatagrams: min(limits.Connections, maxAssociations), idle: limits.Idle}, nil
}

// Start takes over what arrives in the outer namespace for its own addresses,
// until ctx ends.
func Start(ctx context.Context, outer, inner *netns.Namespace, own []netip.Addr, limits Limits) (_ *Relay, err error) {
	r, err := newRelay(outer, inner, limits)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.ports.TCP4, r.ports.UDP4, err = r.listen(netip.IPv4Unspecified()); err != nil {
		return nil, err
	}
	r.ports.TCP6, r.ports.UDP6, err = r.listen(netip.IPv6Unspecified())
	if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, err
	}
	if err := r.Renew(own); err != nil {
		return nil, err
	}
	r.serve(ctx, sameDestination)
	return r, nil
}

// Renew takes over what arrives for the addresses that the outer namespace has
// now.
func (r *Relay) Renew(own []netip.Addr) error {
	r.own.Store(&own)
	return netns.Ingress(r.outer, own, r.ports)
}

// Remove takes the rules out of the outer namespace, which is not this
// sandbox's and may outlive it.
func (r *Relay) Remove() error { return netns.RemoveIngress(r.outer) }

// listen opens what the rules bring one IP version's traffic to.
func (r *Relay) listen(addr netip.Addr) (tcp, udp uint16, err error) {
	l, err := r.listenTCP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return 0, 0, err
	}
	u, err := r.outer.ListenDatagrams(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return 0, 0, err
	}
	r.sockets = append(r.sockets, u)
	return uint16(l.Addr().(*net.TCPAddr).Port), uint16(u.LocalAddr().(*net.UDPAddr).Port), nil
}

func (r *Relay) listenTCP(addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	var l *net.TCPListener
	err := r.outer.Do(func() (err error) {
		l, err = net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err == nil {
		r.listeners = append(r.listeners, l)
	}
	return l, err
}

// serve carries what the listeners get, until ctx ends.
func (r *Relay) serve(ctx context.Context, route routeFunc) {
	for _, l := range r.listeners {
		r.running.Go(func() { r.accept(ctx, l, route) })
	}
	for _, u := range r.sockets {
		r.running.Go(func() { r.take(ctx, u, route) })
	}
	context.AfterFunc(ctx, r.close)
}

// Wait waits until the context has ended, and with it all that uses the namespaces.
func (r *Relay) Wait() { r.running.Wait() }

func (r *Relay) close() {
	for _, l := range r.listeners {
		l.Close()
	}
	for _, u := range r.sockets {
		u.Close()
	}
	r.diag.Close()
}

// hop is how to reach the workload: a destination inside, and the address that
// it is to see, invalid for one of the inner namespace's own.
type hop struct{ from, to netip.AddrPort }

// routeFunc returns where what came from a client to a destination may go, in the
// order of preference.
type routeFunc func(client, dst netip.AddrPort) []hop

// sameDestination routes to the destination inside, as the client, or to its port on
// loopback: there is where programs listen that were not told to be reachable.
func sameDestination(client, dst netip.AddrPort) []hop {
	client, dst = plain(client), plain(dst)
	if a := client.Addr(); a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4() != dst.Addr().Is4() {
		client = netip.AddrPort{}
	}
	hops := []hop{{client, dst}}
	if !dst.Addr().IsLoopback() {
		hops = append(hops, hop{to: netip.AddrPortFrom(loopback(dst.Addr().Is4()), dst.Port())})
	}
	return hops
}

func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func loopback(v4 bool) netip.Addr {
	if v4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// dialFirst opens a socket for the first hop that works.
func dialFirst[C any](hops []hop, dial func(hop) (C, error)) (c C, err error) {
	err = fmt.Errorf("nowhere to go")
	for _, h := range hops {
		if c, err = dial(h); err == nil {
			return c, nil
		}
	}
	return c, err
}
