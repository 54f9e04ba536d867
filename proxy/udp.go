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

// association is the UDP datagrams between one socket of the workload and one
// destination.
type association struct {
	*netns.Association
	p        *Proxy
	ctx      context.Context
	cancel   context.CancelFunc
	host     string
	proc     identity.Process
	addrs    []netip.Addr
	admitted atomic.Bool
	quic     atomic.Bool // QUIC was begun on it, and no rule allows that

	identified time.Time // when it was last asked whose proc is; the sending goroutine's
}

// takeDatagram gives a datagram to its association, or begins one, unless it
// answers what came in.
func (p *Proxy) takeDatagram(ctx context.Context, d netns.Datagram) {
	if p.Answer != nil && p.Answer(d) {
		return
	}
	a, ok := p.datagrams.Get(d.Ends, func(int) (*association, bool) {
		if p.room() != "" {
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
	up, err := a.admit(first)
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
	a.May, a.Pass, a.Silence = a.sameProgram, a.isNotQUIC, a.p.IdleTimeout
	a.Relay(a.ctx, down, up)
	if a.quic.Load() {
		_ = a.deny(LayerL4, quicHides)
		a.refuse(nil)
		return
	}
	if a.Refused.Load() {
		a.unreachable(nil)
	}
}

var errRefused = errors.New("refused")

// admit takes the decisions in the order in which those on a connection are
// taken, records them, and returns a socket to the destination.
func (a *association) admit(first []byte) (net.Conn, error) {
	var err error
	if a.proc, err = a.p.IdentifyDatagram(a.Source, a.Destination); err != nil {
		return nil, a.deny(LayerIdentity, err.Error())
	}
	a.identified = time.Now()
	f := &flow{p: a.p, proc: a.proc, port: a.Destination.Port(), udp: true}
	a.host = a.p.hostOf(f, a.Destination.Addr())
	f.host = a.host
	if addr, err := netip.ParseAddr(a.host); err == nil && names.IsSynthetic(addr) {
		return nil, a.deny(LayerConnection, "the address belongs to no name of this sandbox")
	}
	view := a.p.View()
	grant := view.grant(f.connection())
	decided := grant.connection()
	if decided.Outcome == Logged && isQUIC(first) {
		return nil, a.deny(LayerL4, quicHides)
	}
	if decided.Outcome == Denied {
		a.record(decided.Record)
		return nil, errRefused
	}
	if err := a.resolve(f, grant); err != nil {
		return nil, err
	}
	up, err := a.dial()
	if err != nil {
		return nil, a.deny(LayerUpstream, err.Error())
	}
	a.admitted.Store(true)
	if now := a.p.View(); now != view && !a.standsUnder(now) {
		up.Close()
		return nil, a.deny(LayerL4, "policy changed")
	}
	a.record(decided.Record)
	if decided.Outcome == Logged {
		decided.Evidence = true
		a.record(decided.Record)
	}
	return up, nil
}

// resolve is flow.resolve for datagrams.
func (a *association) resolve(f *flow, g *grant) error {
	ctx, cancel := context.WithTimeout(a.ctx, dialTimeout)
	defer cancel()
	addrs, err := a.p.Resolve(ctx, a.host)
	if err != nil {
		return a.deny(LayerUpstream, err.Error())
	}
	for _, addr := range addrs {
		if err := f.checkAddress(g, addr); err != nil {
			return a.deny(LayerSSRF, err.Error())
		}
	}
	a.addrs = addrs
	return nil
}

// dial makes a socket for the first address that there is a route to. Of the
// destination's own family first: that one the workload has chosen.
func (a *association) dial() (net.Conn, error) {
	err := errors.New("no address")
	for _, own := range []bool{true, false} {
		for _, addr := range a.addrs {
			if (addr.Is4() == a.Destination.Addr().Is4()) != own {
				continue
			}
			var conn net.Conn
			if conn, err = a.p.Outer.Dial(a.ctx, "udp", netip.AddrPortFrom(addr, a.Destination.Port())); err == nil {
				return conn, nil
			}
		}
	}
	return nil, err
}

// flow is a flow to the destination, for decisions.
func (a *association) flow() *flow {
	return &flow{p: a.p, proc: a.proc, host: a.host, port: a.Destination.Port(), udp: true}
}

func (a *association) grant(view View) *grant { return view.grant(a.flow().connection()) }

// standsUnder tells whether a view allows an admitted association and the
// addresses that its host had.
func (a *association) standsUnder(view View) bool {
	f, g := a.flow(), a.grant(view)
	return g.connection().Outcome != Denied &&
		!slices.ContainsFunc(a.addrs, func(addr netip.Addr) bool { return f.checkAddress(g, addr) != nil })
}

// sameProgram tells whether the association's datagrams still are those of the
// program that it was granted to. Where they are not, it ends, and another one,
// for which that is decided, begins.
func (a *association) sameProgram() bool {
	if time.Since(a.identified) < identityHolds {
		return true
	}
	p, err := a.p.IdentifyDatagram(a.Source, a.Destination)
	a.identified = time.Now()
	return err == nil && p.Path == a.proc.Path && p.SHA256 == a.proc.SHA256 && slices.Equal(p.Ancestors, a.proc.Ancestors) &&
		slices.Equal(p.Aliases, a.proc.Aliases)
}

// isNotQUIC is for datagrams that only permissive mode lets through: QUIC may begin
// with any of them. Rules come and go meanwhile.
func (a *association) isNotQUIC(payload []byte) bool {
	if !isQUIC(payload) || a.grant(a.p.View()).connection().Outcome == Allowed {
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

func (a *association) deny(layer, reason string) error {
	a.record(Record{Kind: Connect, Outcome: Denied, Layer: layer, Reason: reason})
	return fmt.Errorf("%w: %s", errRefused, reason)
}

func (a *association) record(r Record) {
	r.Time, r.UDP = time.Now(), true
	r.Process, r.Host, r.Port = a.proc, a.host, a.Destination.Port()
	if r.Host == "" {
		r.Host = a.Destination.Addr().String()
	}
	r.Addrs = a.addrs
	a.p.Record(r)
}

// closeAssociations ends those that a view no longer allows.
func (p *Proxy) closeAssociations(view View) {
	p.datagrams.Each(func(a *association) {
		if a.admitted.Load() && !a.standsUnder(view) {
			a.Refused.Store(true)
			a.cancel()
		}
	})
}
