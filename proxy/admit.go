// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/proxy/names"
)

const dialTimeout = 30 * time.Second

// clientConn is the workload's end of a flow, as the one goroutine has it that carries the flow.
type clientConn struct {
	*net.TCPConn
	said []byte // what was read of it before
}

// run carries an intercepted connection from decision to relay.
func (f *tcpFlow) run(client clientConn) {
	upstream, admitted, refused := f.admit()
	if refused != nil {
		f.explain(client, refused)
		return
	}
	f.relay(client, upstream, admitted)
}

// syntheticAddress is why a connection to an address that stands for no name goes nowhere.
const syntheticAddress = "the address belongs to no name of this sandbox"

// admit takes the decisions that come before the first byte, in this order: identity, policy, resolution,
// address guard. Then it dials. Only the second has a permissive form. It returns what the connection was
// admitted by.
func (f *tcpFlow) admit() (*net.TCPConn, *decision.Connection, *refusal) {
	to := f.endpoint()
	if to.processErr != nil {
		return nil, nil, refusedPolicy(LayerIdentity, to.processErr.Error())
	}
	if addr, err := netip.ParseAddr(to.host); err == nil && names.IsSynthetic(addr) {
		return nil, nil, refusedPolicy(LayerConnection, syntheticAddress)
	}
	snapshot := f.p.Snapshot()
	c := f.decide(snapshot)
	d := c.Decision()
	if d.Outcome == decision.Denied {
		return nil, nil, refusedConnection(d)
	}
	if refused := f.resolve(c); refused != nil {
		return nil, nil, refused
	}
	upstream, err := f.dial(f.ctx)
	if err != nil {
		return nil, nil, to.refusedUpstream(err)
	}
	f.conns.own(upstream)
	f.admitted.Store(true)
	// Reconsider looks only at admitted flows; a change before that is ours to see.
	if now := f.p.Snapshot(); now != snapshot && !f.stillAllowed(now) {
		upstream.Close()
		f.admitted.Store(false)
		return nil, nil, refusedPolicy(LayerL4, "policy changed")
	}
	f.record(recordOfConnection(d))
	f.watchIdle()
	return upstream, c, nil
}

// resolve looks the host up once and holds every address against the guard. What cannot be looked up here is left to
// the site's proxy, where there is one.
func (f *tcpFlow) resolve(c *decision.Connection) *refusal {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	to := f.endpoint()
	addrs, err := f.p.Resolve(ctx, to.host)
	if err != nil && !f.p.Chain.Carries(to.host, to.port, nil) {
		return to.refusedUpstream(err)
	}
	to = to.resolved(addrs)
	if d := to.decideAddresses(c); d.Outcome == decision.Denied {
		return to.refusedAddress(d.Reason)
	}
	f.to.Store(to)
	return nil
}

// dial connects to the first address that answers, or through the site's proxy.
func (f *tcpFlow) dial(ctx context.Context) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	to := f.endpoint()
	if f.p.Chain.Carries(to.host, to.port, to.addrs) {
		return f.p.Chain.Connect(ctx, f.ctx, to.host, to.port)
	}
	err := errors.New("no address")
	for i, a := range to.addrs {
		// A dead address must leave time for those behind it.
		left := len(to.addrs) - i
		attempt, done := context.WithTimeout(ctx, dialTimeout/time.Duration(left))
		var conn net.Conn
		conn, err = f.p.Outer.Dial(attempt, "tcp", netip.AddrPortFrom(a, to.port))
		done()
		if err == nil {
			return conn.(*net.TCPConn), nil // as the network says
		}
	}
	return nil, err
}
