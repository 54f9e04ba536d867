// SPDX-License-Identifier: Apache-2.0

package netns

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

	"openshell.ai/openshell/internal/crash"
)

const (
	// datagramIdle is how long two ends may be silent unless less is wanted: RFC
	// 4787 (REQ-5) wants two minutes at least.
	datagramIdle = 2 * time.Minute
	// maxPending bounds the datagrams that wait until an association has its sockets.
	maxPending  = 16
	maxDatagram = 64 << 10
)

// Ends are who sends and to whom.
type Ends struct{ Source, Destination netip.AddrPort }

// TakeDatagrams gives every datagram that rules bring to a socket to take, until
// the socket is closed. The payload is overwritten once take returns.
func TakeDatagrams(conn *net.UDPConn, take func(Datagram)) {
	buf := make([]byte, maxDatagram)
	for {
		d, err := ReadDatagram(conn, buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			slog.Warn("read datagram", "error", err)
			time.Sleep(time.Millisecond)
			continue
		}
		crash.Contain("a datagram", func() { take(d) })
	}
}

// Associations are those that are open, by their ends. It is safe for concurrent
// use; the zero value has none.
type Associations[A any] struct {
	mu   sync.Mutex
	open map[Ends]A
}

// Get returns the association of two ends, or where there is none, the one that
// begin makes if there may be one more than the open ones.
func (s *Associations[A]) Get(e Ends, begin func(open int) (A, bool)) (A, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.open[e]; ok {
		return a, true
	}
	a, ok := begin(len(s.open))
	if ok {
		if s.open == nil {
			s.open = map[Ends]A{}
		}
		s.open[e] = a
	}
	return a, ok
}

// Find returns the association of two ends, if there is one.
func (s *Associations[A]) Find(e Ends) (A, bool) {
	return s.Get(e, func(int) (a A, ok bool) { return a, false })
}

// End forgets the association of two ends.
func (s *Associations[A]) End(e Ends) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, e)
}

// Each calls f for those that are open. f must not use s.
func (s *Associations[A]) Each(f func(A)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.open {
		f(a)
	}
}

// Association is the datagrams between two ends. Those that come before it has
// sockets wait for them.
type Association struct {
	Ends
	Refused atomic.Bool // nobody is at the destination, or nobody may be reached
	// May reports whether a datagram of the source's may pass; where not, Relay ends.
	// It is called by one goroutine. nil: all may.
	May func() bool
	// Pass reports whether the source's datagram may pass by what is in it; where not,
	// Relay ends. It is called by two goroutines. nil: all may.
	Pass func(payload []byte) bool
	// Silence, where it is less than datagramIdle and not 0, is how long both ends
	// may be silent.
	Silence time.Duration

	pending chan []byte
	seen    atomic.Int64 // when the last datagram passed, in Unix nanoseconds
}

// NewAssociation returns one without sockets.
func NewAssociation(e Ends) *Association {
	return &Association{Ends: e, pending: make(chan []byte, maxPending)}
}

// Add takes a datagram of the source's.
func (a *Association) Add(payload []byte) {
	select {
	case a.pending <- append([]byte{}, payload...): // never nil
	default: // UDP promises nothing
	}
}

// Next returns the next datagram that was added; nil once ctx has ended.
func (a *Association) Next(ctx context.Context) []byte {
	select {
	case b := <-a.pending:
		return b
	case <-ctx.Done():
		return nil
	}
}

// Relay passes datagrams both ways between a socket to the source and one to the
// destination, until nothing has passed for a while, one of them fails, which
// Refused tells if nobody is at the destination, or ctx ends. It closes both.
func (a *Association) Relay(ctx context.Context, source, destination net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { source.Close(); destination.Close() })()
	a.seen.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		crash.Contain("datagrams", func() {
			_ = a.pass(destination, source, func(payload []byte) bool {
				return (a.May == nil || a.May()) && (a.Pass == nil || a.Pass(payload))
			})
		})
	})
	wg.Go(func() { // what came before the socket for the rest
		for b := a.Next(ctx); b != nil; b = a.Next(ctx) {
			if a.Pass != nil && !a.Pass(b) {
				cancel()
				return
			}
			a.Write(destination, b)
		}
	})
	if errors.Is(a.pass(source, destination, nil), syscall.ECONNREFUSED) {
		a.Refused.Store(true)
	}
	cancel()
	wg.Wait()
	source.Close()
	destination.Close()
}

// pass copies one direction, as long as its datagrams may pass, until its source
// fails or both are silent.
func (a *Association) pass(to, from net.Conn, may func(payload []byte) bool) error {
	silence := datagramIdle
	if a.Silence > 0 {
		silence = min(silence, a.Silence)
	}
	buf := make([]byte, maxDatagram)
	for {
		_ = from.SetReadDeadline(time.Now().Add(silence))
		n, err := from.Read(buf)
		var timeout net.Error
		switch {
		case err == nil && may != nil && !may(buf[:n]):
			return nil
		case err == nil:
			a.Write(to, buf[:n])
		case errors.As(err, &timeout) && timeout.Timeout() && time.Since(time.Unix(0, a.seen.Load())) < silence:
		default:
			return err
		}
	}
}

// Write sends a datagram on. That it is lost is no error.
func (a *Association) Write(to net.Conn, payload []byte) {
	a.seen.Store(time.Now().UnixNano())
	_, _ = to.Write(payload)
}
