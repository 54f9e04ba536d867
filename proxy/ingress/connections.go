// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/netns"
)

// dialTimeout bounds a connection inside: it never leaves the machine.
const dialTimeout = 5 * time.Second

func (r *Relay) accept(ctx context.Context, l *net.TCPListener, route routeFunc) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: wait for some
			slog.Warn("accept inbound connection", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case r.slots <- struct{}{}:
			r.running.Go(func() {
				defer func() { <-r.slots }()
				if !crash.Contain("an inbound connection", func() { r.carry(ctx, conn, route) }) {
					refuse(conn)
				}
			})
		default:
			refuse(conn)
		}
	}
}

// carry connects an arrived connection to the workload. What nobody listens to
// inside is refused, as it would be without a sandbox.
func (r *Relay) carry(ctx context.Context, outside *net.TCPConn, route routeFunc) {
	inside, err := r.reach(ctx, outside, route)
	if err != nil {
		refuse(outside)
		return
	}
	stop := context.AfterFunc(ctx, func() { outside.Close(); inside.Close() })
	defer stop()
	if r.idle > 0 {
		defer endIdle(r.idle, outside, inside)()
	}
	defer outside.Close()
	defer inside.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		if !crash.Contain("what an inbound connection is answered", func() { pipe(inside, outside) }) {
			inside.Close()
			outside.Close()
		}
	})
	pipe(outside, inside)
	wg.Wait()
}

// endIdle ends a pair of connections that carries nothing for so long.
func endIdle(after time.Duration, outside, inside *net.TCPConn) (stop func()) {
	var timer *time.Timer
	var mu sync.Mutex // until there is a timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(after, func() {
		mu.Lock()
		defer mu.Unlock()
		idle, ok := netns.Idle(outside, inside)
		switch {
		case !ok:
		case idle >= after:
			refuse(outside)
			refuse(inside)
		default:
			timer.Reset(after - idle)
		}
	})
	return func() { timer.Stop() }
}

func (r *Relay) reach(ctx context.Context, outside *net.TCPConn, route routeFunc) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	client := outside.RemoteAddr().(*net.TCPAddr).AddrPort()
	conn, err := dialFirst(route(client, destination(outside)), func(h hop) (net.Conn, error) { return r.dial(ctx, h) })
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// destination is what a connection was opened for. One that the kernel does not
// track has been redirected by no rule.
func destination(conn *net.TCPConn) netip.AddrPort {
	if dst, err := netns.OriginalDestination(conn); err == nil {
		return dst
	}
	return conn.LocalAddr().(*net.TCPAddr).AddrPort()
}

// dial lets the workload see the client's address, and its port where nothing
// inside has the same pair.
func (r *Relay) dial(ctx context.Context, h hop) (net.Conn, error) {
	if !h.from.IsValid() {
		return r.inner.DialUnintercepted(ctx, "tcp", h.to)
	}
	conn, err := r.inner.DialFrom(ctx, "tcp", h.from, h.to)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		conn, err = r.inner.DialFrom(ctx, "tcp", netip.AddrPortFrom(h.from.Addr(), 0), h.to)
	}
	return conn, err
}

// pipe copies one direction, in the kernel, and passes its end on. A failure of
// either side ends both directions: what was cut off must not seem complete.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		refuse(to)
		refuse(from)
		return
	}
	_ = to.CloseWrite()
}

// refuse closes a connection so that the other end sees it reset, not ended.
func refuse(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
