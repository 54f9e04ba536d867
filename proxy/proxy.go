// Package proxy owns every byte that leaves a sandbox: it takes the workload's
// connections, learns from the kernel and the first bytes what they are, asks
// the policy, and then refuses them with a reason, passes them on untouched, or
// terminates TLS and passes on each HTTP request. It decides nothing itself,
// knows no files, and reports what it did as Records.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

// View is what rules a decision at one moment.
type View struct {
	Engine     *policy.Engine
	Permissive bool // network denials are recorded and let through
}

// Config is what a sandbox's proxy works with. All fields are required.
type Config struct {
	Outer    *netns.Namespace // where upstream connections start
	View     func() View      // the effective policy and mode, now
	Names    *names.Table     // whose synthetic addresses stand for names
	Resolve  func(ctx context.Context, host string) ([]netip.Addr, error)
	Identify func(local, remote netip.AddrPort) (identity.Process, error)
	CA       *CA
	Roots    *x509.CertPool // upstream certificates must chain to one of these
	Record   func(Record)   // must not block

	MaxConnections int           // at once; more are refused
	IdleTimeout    time.Duration // of kept-alive HTTP connections
	HeaderBytes    int           // of an HTTP request's header
}

// Proxy serves one sandbox.
type Proxy struct {
	Config
	intercepted *http.Server // requests on connections opened for an origin
	explicit    *http.Server // requests of clients configured for a proxy
	toOrigin    *handover
	toProxy     *handover
	forward     http.Handler
	sessions    tls.ClientSessionCache
	pinned      pinned

	open  atomic.Int64
	mu    sync.Mutex
	flows map[*flow]struct{}
}

// New returns a proxy that Serve puts to work.
func New(c Config) *Proxy {
	p := &Proxy{
		Config:   c,
		toOrigin: newHandover(),
		toProxy:  newHandover(),
		sessions: tls.NewLRUClientSessionCache(512),
		flows:    make(map[*flow]struct{}),
	}
	p.forward = newForwarder()
	p.intercepted = p.server(http.HandlerFunc(serveIntercepted))
	p.explicit = p.server(http.HandlerFunc(p.serveExplicit))
	return p
}

func (p *Proxy) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ConnContext:       connContext,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       p.IdleTimeout,
		MaxHeaderBytes:    p.HeaderBytes,
		// Malformed requests and failed handshakes are the workload's noise.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
}

// Serve takes connections from the listeners, which must be in the inner
// namespace, until ctx ends. Then it closes every connection.
func (p *Proxy) Serve(ctx context.Context, listeners []*net.TCPListener) {
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { p.accept(ctx, l) })
	}
	wg.Go(func() { _ = p.intercepted.Serve(p.toOrigin) })
	wg.Go(func() { _ = p.explicit.Serve(p.toProxy) })
	<-ctx.Done()
	for _, l := range listeners {
		l.Close()
	}
	p.intercepted.Close()
	p.explicit.Close()
	p.closeFlows(func(*flow) bool { return true })
	wg.Wait()
}

func (p *Proxy) accept(ctx context.Context, l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: wait for some
			slog.Warn("accept", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if p.open.Add(1) > int64(p.MaxConnections) {
			p.open.Add(-1)
			p.Record(Record{Time: time.Now(), Outcome: Denied, Layer: LayerLimit,
				Reason: "the sandbox has limits.connections connections open"})
			reset(conn)
			continue
		}
		go p.handle(ctx, conn)
	}
}

// handle takes one intercepted connection.
func (p *Proxy) handle(ctx context.Context, conn *net.TCPConn) {
	f := &flow{p: p, client: conn}
	f.ctx, f.cancel = context.WithCancel(ctx)
	p.track(f)

	dst, err := netns.OriginalDestination(conn)
	if err != nil {
		f.deny(LayerConnection, err.Error())
		f.abort()
		return
	}
	f.proc, f.procErr = p.Identify(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), dst)
	if dst.Port() == netns.ExplicitProxyPort && (dst.Addr() == netns.ProxyAddr4 || dst.Addr() == netns.ProxyAddr6) {
		p.toProxy.give(newFlowConn(f, conn, nil))
		return
	}
	f.host, f.port = p.hostOf(dst.Addr()), dst.Port()
	f.run()
}

// hostOf returns the name that the workload connected to, or the address where
// it used none.
func (p *Proxy) hostOf(a netip.Addr) string {
	if name, ok := p.Names.Name(a); ok {
		return name
	}
	return a.Unmap().String()
}

// Reconsider closes the connections that the view no longer allows.
func (p *Proxy) Reconsider() {
	view := p.View()
	p.closeFlows(func(f *flow) bool {
		return f.host != "" && !view.Permissive && !view.Engine.Connect(f.connection()).Allowed
	})
}

func (p *Proxy) closeFlows(which func(*flow) bool) {
	p.mu.Lock()
	var flows []*flow
	for f := range p.flows {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	for _, f := range flows {
		if which(f) {
			f.abort()
		}
	}
}

func (p *Proxy) track(f *flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[f] = struct{}{}
}

func (p *Proxy) forget(f *flow) {
	p.mu.Lock()
	_, tracked := p.flows[f]
	delete(p.flows, f)
	p.mu.Unlock()
	if tracked {
		p.open.Add(-1)
	}
}

// reset closes a connection so that the workload sees it refused, not ended.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
