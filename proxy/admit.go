// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"openshell.ai/openshell/proxy/names"
)

const dialTimeout = 30 * time.Second

// plan is how an admitted connection is to be carried.
type plan struct {
	inspect  bool // see each HTTP request
	declared bool // because the policy names a protocol: anything else is refused
	policy   string
}

// run carries an intercepted connection from decision to relay.
func (f *flow) run() {
	upstream, plan, refused := f.admit()
	if refused != nil {
		f.explain(refused)
		return
	}
	f.relay(upstream, plan)
}

// admit takes the decisions that come before the first byte, in this order:
// identity, policy, resolution, address guard. Then it dials. Only the second
// has a permissive form.
func (f *flow) admit() (*net.TCPConn, plan, *refusal) {
	if f.procErr != nil {
		return nil, plan{}, f.refusedPolicy(LayerIdentity, f.procErr.Error())
	}
	if addr, err := netip.ParseAddr(f.host); err == nil && names.IsSynthetic(addr) {
		return nil, plan{}, f.refusedPolicy(LayerConnection, "the address belongs to no name of this sandbox")
	}
	view := f.p.View()
	grant := f.grant(view)
	decided := grant.connection()
	if decided.Outcome == Denied {
		return nil, plan{}, f.refusedConnection(decided)
	}
	if refused := f.resolve(grant); refused != nil {
		return nil, plan{}, refused
	}
	upstream, err := f.dial(f.ctx)
	if err != nil {
		return nil, plan{}, f.refusedUpstream(err)
	}
	f.own(upstream)
	f.admitted.Store(true)
	// Reconsider looks only at admitted flows; a change before that is ours to see.
	if now := f.p.View(); now != view && !f.standsUnder(now) {
		upstream.Close()
		f.admitted.Store(false)
		return nil, plan{}, f.refusedPolicy(LayerL4, "policy changed")
	}
	f.record(decided.Record)
	f.watchIdle()
	return upstream, plan{
		inspect:  grant.inspects() || !grant.match.Allowed,
		declared: grant.inspects(),
		policy:   grant.match.Policy,
	}, nil
}

// resolve looks the host up once and holds every address against the guard;
// one bad answer spoils them all, so that a name cannot be made to point
// inside on the second try.
func (f *flow) resolve(g *grant) *refusal {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	addrs, err := f.p.Resolve(ctx, f.host)
	if err != nil {
		return f.refusedUpstream(err)
	}
	for _, a := range addrs {
		if err := f.checkAddress(g, a); err != nil {
			return f.refusedAddress(err)
		}
	}
	for _, a := range addrs {
		f.addrs = append(f.addrs, netip.AddrPortFrom(a, f.port))
	}
	return nil
}

// dial connects to the first address that answers.
func (f *flow) dial(ctx context.Context) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := errors.New("no address")
	for i, a := range f.addrs {
		// A dead address must leave time for those behind it.
		left := len(f.addrs) - i
		attempt, done := context.WithTimeout(ctx, dialTimeout/time.Duration(left))
		var conn net.Conn
		conn, err = f.p.Outer.Dial(attempt, "tcp", a)
		done()
		if err == nil {
			return conn.(*net.TCPConn), nil // as the network says
		}
	}
	return nil, err
}
