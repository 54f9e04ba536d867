package ingress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openshell.ai/openshell/netns"
)

const (
	// maxAssociations bounds the pairs of ends that datagrams pass between: each
	// has two sockets and two buffers.
	maxAssociations = 1024
	// datagramIdle is how long two ends may be silent: RFC 4787 (REQ-5) wants two
	// minutes at least.
	datagramIdle = 2 * time.Minute
	maxDatagram  = 64 << 10
	// maxPending bounds the datagrams that wait for their association's sockets.
	maxPending = 16
)

type ends struct{ client, dst netip.AddrPort }

// datagrams are a relay's associations.
type datagrams struct {
	mu    sync.Mutex
	open  map[ends]*association
	limit int
}

func newDatagrams(limit int) datagrams {
	return datagrams{open: map[ends]*association{}, limit: limit}
}

// association is the UDP datagrams between a client and one address and port
// that it sends to.
type association struct {
	ends
	r       *Relay
	pending chan []byte  // datagrams that came before the socket for the rest
	seen    atomic.Int64 // when the last datagram passed, in Unix nanoseconds
	refused atomic.Bool  // by the workload
}

// take takes the datagrams of one socket until it is closed. Where there are too
// many associations, new ones get nothing, as on a host that is overwhelmed.
func (r *Relay) take(ctx context.Context, u *net.UDPConn, lead leader) {
	buf := make([]byte, maxDatagram)
	for {
		d, err := netns.ReadDatagram(u, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			slog.Warn("read inbound datagram", "error", err)
			time.Sleep(time.Millisecond)
			continue
		}
		if a := r.association(ctx, ends{d.Source, d.Destination}, lead); a != nil {
			select {
			case a.pending <- append([]byte(nil), d.Payload...):
			default: // UDP promises nothing
			}
		}
	}
}

// association returns that of two ends, a new one where there is none, or nil
// where there are too many.
func (r *Relay) association(ctx context.Context, e ends, lead leader) *association {
	r.datagrams.mu.Lock()
	defer r.datagrams.mu.Unlock()
	a := r.datagrams.open[e]
	if a == nil && len(r.datagrams.open) < r.datagrams.limit {
		a = &association{ends: e, r: r, pending: make(chan []byte, maxPending)}
		r.datagrams.open[e] = a
		go a.run(ctx, lead(e.client, e.dst))
	}
	return a
}

// run carries an association to its end.
func (a *association) run(ctx context.Context, legs []leg) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		a.r.datagrams.mu.Lock()
		delete(a.r.datagrams.open, a.ends)
		a.r.datagrams.mu.Unlock()
	}()
	first := <-a.pending
	inside, err := dialled(legs, a.r.enter)
	if err != nil {
		a.unreachable(first)
		return
	}
	defer inside.Close()
	outside, err := a.r.outer.DatagramsBetween(a.dst, a.client)
	if err != nil {
		slog.Warn("answer inbound datagrams", "error", err)
		return
	}
	defer outside.Close()
	defer context.AfterFunc(ctx, func() { inside.Close(); outside.Close() })()
	_, _ = inside.Write(first)
	a.relay(ctx, cancel, outside, inside)
	if a.refused.Load() {
		a.unreachable(first)
	}
}

// enter opens a socket to a program inside that has one for the leg's
// destination: without one, only the first datagram's loss would tell.
func (r *Relay) enter(l leg) (net.Conn, error) {
	if _, err := r.diag.UDPInodes(l.to, l.from); err != nil {
		return nil, err
	}
	if !l.from.IsValid() {
		return r.inner.DialUnintercepted(context.Background(), "udp", l.to)
	}
	return r.inner.DatagramsInto(l.from, l.to)
}

// unreachable tells the client that nobody is there.
func (a *association) unreachable(payload []byte) {
	d := netns.Datagram{Source: a.client, Destination: a.dst, Payload: payload}
	_ = a.r.outer.Unreachable(d) // It may be lost, as any datagram.
}

// relay passes datagrams both ways until nothing has passed for a while or one
// end says that nobody is there.
func (a *association) relay(ctx context.Context, cancel func(), outside, inside net.Conn) {
	a.seen.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = a.pass(inside, outside)
		cancel()
	})
	wg.Go(func() {
		for {
			select {
			case b := <-a.pending:
				_, _ = inside.Write(b)
			case <-ctx.Done():
				return
			}
		}
	})
	a.refused.Store(errors.Is(a.pass(outside, inside), syscall.ECONNREFUSED))
	cancel()
	wg.Wait()
}

// pass copies one direction until its source fails or both are silent.
func (a *association) pass(to, from net.Conn) error {
	buf := make([]byte, maxDatagram)
	for {
		_ = from.SetReadDeadline(time.Now().Add(datagramIdle))
		n, err := from.Read(buf)
		var timeout net.Error
		switch {
		case err == nil:
			a.seen.Store(time.Now().UnixNano())
			_, _ = to.Write(buf[:n]) // The next may arrive.
		case errors.As(err, &timeout) && timeout.Timeout() && time.Since(time.Unix(0, a.seen.Load())) < datagramIdle:
		default:
			return err
		}
	}
}
