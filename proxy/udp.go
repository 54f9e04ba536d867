// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

const (
	// refusedWait is how long datagrams between two ends are refused without
	// another decision and another record.
	refusedWait = 5 * time.Second
	// identityHolds is how long datagrams are taken for those of the program that
	// sent one: anybody can have a port that has become free.
	identityHolds = time.Second
)

// association is the UDP datagrams between one socket of the workload and one destination.
type association struct {
	*netns.Association
	p      *Proxy
	ctx    context.Context
	cancel context.CancelFunc

	admitted atomic.Pointer[endpoint] // nil until it is
	quic     atomic.Bool              // QUIC was begun on it, and no rule allows that
}

// takeDatagram gives a datagram to its association, or begins one, unless it
// answers what came in.
func (p *Proxy) takeDatagram(ctx context.Context, d netns.Datagram) {
	if p.Answer != nil && p.Answer(d) {
		return
	}
	a, ok := p.datagrams.Get(d.Ends, func(int) (*association, bool) {
		if p.full() != "" {
			return nil, false
		}
		p.open.Add(1)
		a := &association{Association: netns.NewAssociation(d.Ends), p: p}
		a.ctx, a.cancel = context.WithCancel(ctx)
		p.handlers.Go(func() { crash.Contain("datagrams of the workload", a.run) })
		return a, true
	})
	if !ok || a.Refused.Load() {
		_ = p.Inner.Unreachable(d) // a datagram may be lost
		return
	}
	a.Add(d.Payload)
}

// run carries an association from the decision to its end.
func (a *association) run() {
	defer func() {
		a.cancel()
		a.p.datagrams.End(a.Ends)
		a.p.open.Add(-1)
	}()
	first := a.Next(a.ctx)
	if first == nil {
		return
	}
	to := &endpoint{host: a.Destination.Addr().String(), port: a.Destination.Port(), udp: true}
	to.process, to.processErr = a.p.IdentifyDatagram(a.Source, a.Destination)
	identified := time.Now()
	if to.processErr == nil {
		to.host = a.p.hostOf(to, a.Destination.Addr())
	}
	to, up, err := a.admit(to, first)
	if err != nil {
		a.refuse(first)
		return
	}
	defer up.Close()
	down, err := a.p.Inner.DatagramsBetween(a.Destination, a.Source)
	if err != nil {
		slog.Warn("answer datagrams", "error", err)
		a.refuse(first)
		return
	}
	defer down.Close()
	if _, err := up.Write(first); err != nil {
		a.refuse(first)
		return
	}
	a.May = func() bool { return a.sameProgram(&to.process, &identified) }
	a.Pass, a.Silence = a.isNotQUIC, a.p.IdleTimeout
	a.Relay(a.ctx, down, up)
	if a.quic.Load() {
		_ = a.deny(to, LayerL4, quicHides)
		a.refuse(nil)
		return
	}
	if a.Refused.Load() {
		a.unreachable(nil)
	}
}

var errRefused = errors.New("refused")

// admit takes the decisions in the order in which those on a connection are taken, records them, and returns
// the endpoint with its addresses and a socket to it.
func (a *association) admit(to *endpoint, first []byte) (*endpoint, net.Conn, error) {
	if to.processErr != nil {
		return nil, nil, a.deny(to, LayerIdentity, to.processErr.Error())
	}
	if addr, err := netip.ParseAddr(to.host); err == nil && names.IsSynthetic(addr) {
		return nil, nil, a.deny(to, LayerConnection, syntheticAddress)
	}
	snapshot := a.p.Snapshot()
	c := snapshot.Connect(to.connection())
	d := c.Decision()
	if d.Outcome == decision.Logged && isQUIC(first) {
		return nil, nil, a.deny(to, LayerL4, quicHides)
	}
	if d.Outcome == decision.Denied {
		a.p.Record(to.complete(recordOfConnection(d)))
		return nil, nil, errRefused
	}
	addrs, err := a.resolve(to, c)
	if err != nil {
		return nil, nil, err
	}
	to = to.resolved(addrs)
	up, err := a.dial(to)
	if err != nil {
		return nil, nil, a.deny(to, LayerUpstream, err.Error())
	}
	a.admitted.Store(to)
	if now := a.p.Snapshot(); now != snapshot && !to.stillAllowed(now) {
		up.Close()
		return nil, nil, a.deny(to, LayerL4, "policy changed")
	}
	a.p.Record(to.complete(recordOfConnection(d)))
	if d.Outcome == decision.Logged {
		a.p.Record(to.complete(recordOf(Connect, d)))
	}
	return to, up, nil
}

// resolve is tcpFlow.resolve for datagrams.
func (a *association) resolve(to *endpoint, c *decision.Connection) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(a.ctx, dialTimeout)
	defer cancel()
	addrs, err := a.p.Resolve(ctx, to.host)
	if err != nil {
		return nil, a.deny(to, LayerUpstream, err.Error())
	}
	if d := c.Addresses(addrs...); d.Outcome == decision.Denied {
		return nil, a.deny(to, LayerSSRF, d.Reason)
	}
	return addrs, nil
}

// dial makes a socket for the first address that there is a route to. Of the
// destination's own family first: that one the workload has chosen.
func (a *association) dial(to *endpoint) (net.Conn, error) {
	err := errors.New("no address")
	for _, own := range []bool{true, false} {
		for _, addr := range to.addrs {
			if (addr.Is4() == a.Destination.Addr().Is4()) != own {
				continue
			}
			var conn net.Conn
			if conn, err = a.p.Outer.Dial(a.ctx, "udp", netip.AddrPortFrom(addr, to.port)); err == nil {
				return conn, nil
			}
		}
	}
	return nil, err
}

// stillAllowed reports whether a snapshot allows an association and the addresses that its host had.
func (e *endpoint) stillAllowed(s decision.Snapshot) bool {
	c := s.Connect(e.connection())
	return c.Decision().Outcome != decision.Denied && c.Addresses(e.addrs...).Outcome != decision.Denied
}

// sameProgram reports whether the association's datagrams still are those of the program that it was granted
// to; identified is when that was last asked. Where they are not, it ends, and another one, for which that is
// decided, begins.
func (a *association) sameProgram(was *identity.Process, identified *time.Time) bool {
	if time.Since(*identified) < identityHolds {
		return true
	}
	p, err := a.p.IdentifyDatagram(a.Source, a.Destination)
	*identified = time.Now()
	return err == nil && p.Path == was.Path && p.SHA256 == was.SHA256 && slices.Equal(p.Ancestors, was.Ancestors) &&
		slices.Equal(p.Aliases, was.Aliases)
}

// isNotQUIC is for datagrams that only permissive mode lets through: QUIC may begin with any of them. Rules
// come and go meanwhile.
func (a *association) isNotQUIC(payload []byte) bool {
	if !isQUIC(payload) {
		return true
	}
	c := a.p.Snapshot().Connect(a.admitted.Load().connection())
	if c.Decision().Outcome == decision.Allowed {
		return true
	}
	a.Refused.Store(true)
	a.quic.Store(true)
	return false
}

// refuse tells the workload that nobody is there, and goes on to for a while
// where it asks again.
func (a *association) refuse(first []byte) {
	a.Refused.Store(true)
	ctx, cancel := context.WithTimeout(a.ctx, refusedWait)
	defer cancel()
	a.unreachable(first)
	for b := a.Next(ctx); b != nil; b = a.Next(ctx) {
		a.unreachable(b)
	}
}

func (a *association) unreachable(payload []byte) {
	_ = a.p.Inner.Unreachable(netns.Datagram{Ends: a.Ends, Payload: payload}) // It may be lost, as any datagram.
}

func (a *association) deny(to *endpoint, layer, reason string) error {
	a.p.Record(to.complete(Record{Kind: Connect, Outcome: decision.Denied, Layer: layer, Reason: reason}))
	return fmt.Errorf("%w: %s", errRefused, reason)
}

// closeAssociations ends those that a snapshot no longer allows.
func (p *Proxy) closeAssociations(s decision.Snapshot) {
	p.datagrams.Each(func(a *association) {
		if to := a.admitted.Load(); to != nil && !to.stillAllowed(s) {
			a.Refused.Store(true)
			a.cancel()
		}
	})
}
