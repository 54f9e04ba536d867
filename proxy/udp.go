package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

const (
	// datagramIdle is how long two ends may be silent: RFC 4787 (REQ-5) wants two
	// minutes at least.
	datagramIdle = 2 * time.Minute
	// refusedWait is how long datagrams between two ends are refused without
	// another decision and another record.
	refusedWait = 5 * time.Second
	// maxPending bounds the datagrams that wait for the decision on the first.
	maxPending  = 16
	maxDatagram = 64 << 10
	// identityHolds is how long datagrams are taken for those of the program that
	// sent one: anybody can have a port that has become free.
	identityHolds = time.Second
)

// association is the UDP datagrams between one socket of the workload and one
// destination.
type association struct {
	p        *Proxy
	ends     ends
	inner    *netns.Namespace
	ctx      context.Context
	cancel   context.CancelFunc
	pending  chan []byte // datagrams that came before the relay
	host     string
	proc     identity.Process
	addrs    []netip.Addr
	admitted atomic.Bool
	refused  atomic.Bool
	seen     atomic.Int64 // when the last datagram passed, in Unix nanoseconds

	identified time.Time // when it was last asked whose proc is; the sending goroutine's
}

type ends struct{ src, dst netip.AddrPort }

// datagrams are a sandbox's associations.
type datagrams struct {
	mu   sync.Mutex
	open map[ends]*association
}

// serveDatagrams takes the UDP datagrams of one socket until it is closed.
func (p *Proxy) serveDatagrams(ctx context.Context, l *net.UDPConn) {
	buf := make([]byte, maxDatagram)
	for {
		d, err := netns.ReadDatagram(l, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			slog.Warn("read datagram", "error", err)
			time.Sleep(time.Millisecond)
			continue
		}
		p.takeDatagram(ctx, d)
	}
}

// takeDatagram gives a datagram to its association, or begins one.
func (p *Proxy) takeDatagram(ctx context.Context, d netns.Datagram) {
	key := ends{d.Source, d.Destination}
	p.datagrams.mu.Lock()
	a := p.datagrams.open[key]
	if a == nil {
		if p.open.Add(1) > int64(p.MaxConnections) {
			p.open.Add(-1)
			p.datagrams.mu.Unlock()
			_ = p.Inner.Unreachable(d) // a datagram may be lost
			return
		}
		a = &association{p: p, ends: key, inner: p.Inner, pending: make(chan []byte, maxPending)}
		a.ctx, a.cancel = context.WithCancel(ctx)
		p.datagrams.open[key] = a
		p.handlers.Go(a.run)
	}
	p.datagrams.mu.Unlock()
	if a.refused.Load() {
		_ = p.Inner.Unreachable(d)
		return
	}
	select {
	case a.pending <- append([]byte(nil), d.Payload...):
	default: // UDP promises nothing
	}
}

// run carries an association from the decision to its end.
func (a *association) run() {
	defer func() {
		a.cancel()
		a.p.datagrams.mu.Lock()
		delete(a.p.datagrams.open, a.ends)
		a.p.datagrams.mu.Unlock()
		a.p.open.Add(-1)
	}()
	first := <-a.pending
	up, err := a.admit(first)
	if err != nil {
		a.refuse(first)
		return
	}
	defer up.Close()
	down, err := a.inner.DatagramsBetween(a.ends.dst, a.ends.src)
	if err != nil {
		slog.Warn("answer datagrams", "error", err)
		a.refuse(first)
		return
	}
	defer down.Close()
	defer context.AfterFunc(a.ctx, func() { up.Close(); down.Close() })()
	if _, err := up.Write(first); err != nil {
		a.refuse(first)
		return
	}
	a.relay(up, down)
	if a.refused.Load() {
		_ = a.inner.Unreachable(netns.Datagram{Source: a.ends.src, Destination: a.ends.dst})
	}
}

var errRefused = errors.New("refused")

// admit takes the decisions in the order in which those on a connection are
// taken, records them, and returns a socket to the destination.
func (a *association) admit(first []byte) (net.Conn, error) {
	var err error
	if a.proc, err = a.p.IdentifyDatagram(a.ends.src, a.ends.dst); err != nil {
		return nil, a.deny(LayerIdentity, err.Error())
	}
	a.identified = time.Now()
	f := &flow{p: a.p, proc: a.proc, port: a.ends.dst.Port(), udp: true}
	a.host = a.p.hostOf(f, a.ends.dst.Addr())
	f.host = a.host
	if addr, err := netip.ParseAddr(a.host); err == nil && names.IsSynthetic(addr) {
		return nil, a.deny(LayerConnection, "the address belongs to no name of this sandbox")
	}
	view := a.p.View()
	grant := view.grant(f.connection())
	decided := grant.connection()
	if decided.Outcome == Logged && isQUIC(first) {
		// Its client goes on over TCP, where the requests can be learned.
		return nil, a.deny(LayerL4, "QUIC hides its requests: it is refused unless a rule with protocol: udp allows it")
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
			if (addr.Is4() == a.ends.dst.Addr().Is4()) != own {
				continue
			}
			var conn net.Conn
			if conn, err = a.p.Outer.Dial(a.ctx, "udp", netip.AddrPortFrom(addr, a.ends.dst.Port())); err == nil {
				return conn, nil
			}
		}
	}
	return nil, err
}

// standsUnder tells whether a view allows an admitted association and the
// addresses that its host had.
func (a *association) standsUnder(view View) bool {
	f := &flow{p: a.p, proc: a.proc, host: a.host, port: a.ends.dst.Port(), udp: true}
	g := view.grant(f.connection())
	return g.connection().Outcome != Denied &&
		!slices.ContainsFunc(a.addrs, func(addr netip.Addr) bool { return f.checkAddress(g, addr) != nil })
}

// relay passes datagrams both ways until nothing has passed for a while, the
// view no longer allows it, or the destination says that nobody is there.
func (a *association) relay(up, down net.Conn) {
	a.seen.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() {
		a.pass(down, up, func() bool { return true })
		a.cancel()
	})
	wg.Go(func() { // what came before the socket for the rest
		for {
			select {
			case b := <-a.pending:
				_, _ = up.Write(b)
			case <-a.ctx.Done():
				return
			}
		}
	})
	a.pass(up, down, a.sameProgram)
	a.cancel()
	wg.Wait()
}

// sameProgram tells whether the association's datagrams still are those of the
// program that it was granted to. Where they are not, it ends, and another one,
// for which that is decided, begins.
func (a *association) sameProgram() bool {
	if time.Since(a.identified) < identityHolds {
		return true
	}
	p, err := a.p.IdentifyDatagram(a.ends.src, a.ends.dst)
	a.identified = time.Now()
	return err == nil && p.Path == a.proc.Path && p.SHA256 == a.proc.SHA256 && slices.Equal(p.Ancestors, a.proc.Ancestors)
}

// pass copies one direction, as long as its datagrams may pass.
func (a *association) pass(to, from net.Conn, may func() bool) {
	buf := make([]byte, maxDatagram)
	for {
		_ = from.SetReadDeadline(time.Now().Add(datagramIdle))
		n, err := from.Read(buf)
		switch {
		case err == nil && !may():
			return
		case err == nil:
			a.seen.Store(time.Now().UnixNano())
			_, _ = to.Write(buf[:n]) // The next may arrive.
		case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
			if time.Since(time.Unix(0, a.seen.Load())) >= datagramIdle {
				return
			}
		case errors.Is(err, syscall.ECONNREFUSED):
			a.refused.Store(true)
			return
		default:
			return
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// refuse tells the workload that nobody is there, and goes on to for a while
// where it asks again.
func (a *association) refuse(first []byte) {
	a.refused.Store(true)
	d := netns.Datagram{Source: a.ends.src, Destination: a.ends.dst, Payload: first}
	_ = a.inner.Unreachable(d) // It may be lost, as any datagram.
	timer := time.NewTimer(refusedWait)
	defer timer.Stop()
	for {
		select {
		case b := <-a.pending:
			d.Payload = b
			_ = a.inner.Unreachable(d)
		case <-timer.C:
			return
		case <-a.ctx.Done():
			return
		}
	}
}

func (a *association) deny(layer, reason string) error {
	a.record(Record{Kind: Connect, Outcome: Denied, Layer: layer, Reason: reason})
	return fmt.Errorf("%w: %s", errRefused, reason)
}

func (a *association) record(r Record) {
	r.Time, r.UDP = time.Now(), true
	r.Process, r.Host, r.Port = a.proc, a.host, a.ends.dst.Port()
	if r.Host == "" {
		r.Host = a.ends.dst.Addr().String()
	}
	r.Addrs = a.addrs
	a.p.Record(r)
}

// closeAssociations ends those that a view no longer allows.
func (p *Proxy) closeAssociations(view View) {
	p.datagrams.mu.Lock()
	defer p.datagrams.mu.Unlock()
	for _, a := range p.datagrams.open {
		if a.admitted.Load() && !a.standsUnder(view) {
			a.refused.Store(true)
			a.cancel()
		}
	}
}

// minInitial is the least size of a client's first QUIC datagram, in bytes (RFC
// 9000 section 14.1).
const minInitial = 1200

// isQUIC tells whether a datagram may begin a QUIC connection: a long header
// with the fixed bit, and a version (RFC 8999 section 5.1, RFC 9000 section 17.2).
func isQUIC(b []byte) bool {
	return len(b) >= minInitial && b[0]&0xc0 == 0xc0 && binary.BigEndian.Uint32(b[1:]) != 0
}
