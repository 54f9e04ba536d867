// Package ingress owns the connections that come into a sandbox: it takes what
// arrives in the outer namespace for the container's addresses and carries it
// to the same port inside. Whom to let in is the engine's decision, by what it
// publishes and its network policies; this package makes none.
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

	"openshell.ai/openshell/netns"
)

// dialTimeout bounds a connection inside: it never leaves the machine.
const dialTimeout = 5 * time.Second

// Relay carries one sandbox's inbound TCP connections.
type Relay struct {
	outer, inner *netns.Namespace
	listeners    []*net.TCPListener
	port4, port6 uint16        // that they listen on
	slots        chan struct{} // one for each connection that may be open
}

// Start takes over what arrives in the outer namespace for its own addresses,
// until ctx ends. At most limit connections are open at once.
func Start(ctx context.Context, outer, inner *netns.Namespace, own []netip.Addr, limit int) (*Relay, error) {
	r := &Relay{outer: outer, inner: inner, slots: make(chan struct{}, limit)}
	var err error
	if r.port4, err = r.listen("tcp4", "0.0.0.0:0"); err != nil {
		return nil, err
	}
	r.port6, err = r.listen("tcp6", "[::]:0")
	if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		r.close()
		return nil, err
	}
	if err := r.Renew(own); err != nil {
		r.close()
		return nil, err
	}
	for _, l := range r.listeners {
		go r.accept(ctx, l)
	}
	context.AfterFunc(ctx, r.close)
	return r, nil
}

// Renew takes over what arrives for the addresses that the outer namespace has
// now.
func (r *Relay) Renew(own []netip.Addr) error { return netns.Ingress(r.outer, own, r.port4, r.port6) }

func (r *Relay) listen(network, addr string) (uint16, error) {
	var l net.Listener
	err := r.outer.Do(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	if err != nil {
		return 0, err
	}
	r.listeners = append(r.listeners, l.(*net.TCPListener))
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// Remove takes the rules out of the outer namespace, which is not this
// sandbox's and may outlive it.
func (r *Relay) Remove() error { return netns.RemoveIngress(r.outer) }

func (r *Relay) close() {
	for _, l := range r.listeners {
		l.Close()
	}
}

func (r *Relay) accept(ctx context.Context, l *net.TCPListener) {
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
			go func() {
				defer func() { <-r.slots }()
				r.carry(ctx, conn)
			}()
		default:
			refuse(conn)
		}
	}
}

// carry connects an arrived connection to the workload. What nobody listens to
// inside is refused, as it would be without a sandbox.
func (r *Relay) carry(ctx context.Context, outside *net.TCPConn) {
	dst, err := netns.OriginalDestination(outside)
	if err != nil {
		refuse(outside)
		return
	}
	inside, err := r.dial(ctx, outside.RemoteAddr().(*net.TCPAddr).AddrPort(), dst)
	if err != nil {
		refuse(outside)
		return
	}
	stop := context.AfterFunc(ctx, func() { outside.Close(); inside.Close() })
	defer stop()
	defer outside.Close()
	defer inside.Close()
	var wg sync.WaitGroup
	wg.Go(func() { pipe(inside, outside) })
	pipe(outside, inside)
	wg.Wait()
}

// dial connects to the address inside, as the client, or to the port on
// loopback: there is where programs listen that were not told to be reachable.
func (r *Relay) dial(ctx context.Context, client, dst netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := r.dialAs(ctx, client, dst)
	if err != nil && !dst.Addr().IsLoopback() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if dst.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		conn, err = r.inner.Dial(ctx, "tcp", netip.AddrPortFrom(loopback, dst.Port()))
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// dialAs lets the workload see the client's address, and its port where nothing
// inside has the same pair.
func (r *Relay) dialAs(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error) {
	from := netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	if from.Addr().IsLoopback() || from.Addr().IsLinkLocalUnicast() || from.Addr().Is4() != dst.Addr().Unmap().Is4() {
		return r.inner.Dial(ctx, "tcp", dst)
	}
	conn, err := r.inner.DialFrom(ctx, "tcp", from, dst)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		conn, err = r.inner.DialFrom(ctx, "tcp", netip.AddrPortFrom(from.Addr(), 0), dst)
	}
	return conn, err
}

// pipe copies one direction, in the kernel, and passes its end on.
func pipe(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

func refuse(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
