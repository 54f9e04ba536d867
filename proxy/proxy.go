// SPDX-License-Identifier: Apache-2.0

// Package proxy owns every byte that leaves a sandbox: it takes the workload's
// connections, learns from the kernel and the first bytes what they are, asks
// the policy, and then refuses them with a reason, passes them on untouched, or
// terminates TLS and passes on each HTTP request. It decides nothing itself,
// knows no files, and reports what it did as Records.
package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/chain"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/memory"
	"openshell.ai/openshell/proxy/names"
)

// Config is what a sandbox's proxy works with. All fields but Hosts, Chain, Answer, Local, OmitNextSteps and Memory
// are required.
type Config struct {
	Inner    *netns.Namespace         // where the workload is
	Outer    *netns.Namespace         // where upstream connections start
	Snapshot func() decision.Snapshot // what rules now
	Names    *names.Table             // whose synthetic addresses stand for names
	Hosts    *names.Hosts             // names of real addresses; may be nil
	Search   []string                 // the container's search domains, in lower case
	Resolve  func(ctx context.Context, host string) ([]netip.Addr, error)
	Chain    *chain.Proxy // what TCP connections go through
	// Original tells both ends of an accepted connection as the workload has
	// them, before the rules rewrote it.
	Original func(conn *net.TCPConn) (source, destination netip.AddrPort, err error)
	// Identify tells whose an original connection is, by its ends.
	Identify func(local, remote netip.AddrPort) (identity.Process, error)
	// IdentifyDatagram is Identify for UDP.
	IdentifyDatagram func(local, remote netip.AddrPort) (identity.Process, error)
	// Answer takes a datagram that answers one which came in from outside.
	Answer func(netns.Datagram) bool

	CA     *CA
	Roots  func() *x509.CertPool // upstream certificates must chain to one of these
	Record func(Record)          // must not block

	// Local answers requests for http://policy.local/; nil: that name is like any
	// other. Caller tells it who asks.
	Local http.Handler
	// OmitNextSteps: refusals do not say what can be asked of Local.
	OmitNextSteps bool

	MaxConnections int           // at once, and requests at once; more are refused
	IdleTimeout    time.Duration // how long a connection may carry nothing
	HeaderBytes    int           // of an HTTP request's header
	// Memory is added to what the process works within, in bytes; 0: nothing is.
	Memory int64
}

// Proxy serves one sandbox.
type Proxy struct {
	Config
	intercepted *http.Server // requests on connections opened for an origin
	http2       *http.Server // the same, in HTTP/2
	explicit    *http.Server // requests of clients configured for a proxy
	toOrigin    *connListener
	toOrigin2   *connListener
	toProxy     *connListener
	forward     http.Handler
	sessions    tls.ClientSessionCache // with origins
	ticketKey   [32]byte               // of sessions with the workload
	pinned      pinned
	datagrams   netns.Associations[*association]
	held        held
	headers     *semaphore.Weighted // see maxHeaders

	handlers sync.WaitGroup
	open     atomic.Int64 // connections of the workload
	requests atomic.Int64 // under way, on whatever connections
	mu       sync.Mutex
	flows    map[*tcpFlow]bool // whether they count against Config.MaxConnections; guarded by mu
	peak     int               // flows at a time, since many have ended; guarded by mu
}

// New returns a proxy that Serve puts to work.
func New(c Config) *Proxy {
	p := &Proxy{
		Config:    c,
		toOrigin:  newConnListener(),
		toOrigin2: newConnListener(),
		toProxy:   newConnListener(),
		sessions:  tls.NewLRUClientSessionCache(512),
		flows:     make(map[*tcpFlow]bool),
		held:      newHeld(),
		headers:   semaphore.NewWeighted(maxHeaders),
	}
	_, _ = rand.Read(p.ticketKey[:]) // never fails: crypto/rand ends the program instead
	p.forward = newForwarder()
	p.intercepted = p.server(http.HandlerFunc(serveIntercepted))
	p.http2 = p.server(http.HandlerFunc(serveIntercepted))
	p.http2.Protocols.SetHTTP1(false)
	p.http2.Protocols.SetUnencryptedHTTP2(true) // TLS has ended before
	p.explicit = p.server(http.HandlerFunc(p.serveExplicit))
	return p
}

func (p *Proxy) server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           crash.Handler(h),
		Protocols:         protocols,
		ConnContext:       connContext,
		ConnState:         connState,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       p.IdleTimeout,
		MaxHeaderBytes:    p.HeaderBytes,
		HTTP2:             http2Limits(),
		// "OPTIONS *" is a request like any other.
		DisableGeneralOptionsHandler: true,
		// Malformed requests and failed handshakes are the workload's noise.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
}

// shutdownWait bounds the wait for handlers whose connections are closed.
const shutdownWait = 5 * time.Second

// Serve takes connections and datagrams from the listeners and sockets, which
// must be in the inner namespace, until ctx ends. Then it closes every connection and waits for
// those who served them, so that nothing is recorded after it returns.
func (p *Proxy) Serve(ctx context.Context, listeners []*net.TCPListener, packets []*net.UDPConn) {
	if p.Memory > 0 {
		defer memory.New(p.Memory, p.shed).Close()
	}
	var serving sync.WaitGroup
	for _, c := range packets {
		serving.Go(func() { netns.TakeDatagrams(c, func(d netns.Datagram) { p.takeDatagram(ctx, d) }) })
	}
	for _, l := range listeners {
		serving.Go(func() { p.accept(ctx, l) })
	}
	serving.Go(func() { _ = p.intercepted.Serve(p.toOrigin) })
	serving.Go(func() { _ = p.http2.Serve(p.toOrigin2) })
	serving.Go(func() { _ = p.explicit.Serve(p.toProxy) })
	<-ctx.Done()
	for _, l := range listeners {
		l.Close()
	}
	for _, c := range packets {
		c.Close()
	}
	p.toOrigin.Close()
	p.toOrigin2.Close()
	p.toProxy.Close()
	serving.Wait()
	for _, f := range p.flowsNow() {
		f.abort()
	}
	p.handlers.Wait()
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	_ = p.explicit.Shutdown(wait)
	_ = p.intercepted.Shutdown(wait)
	_ = p.http2.Shutdown(wait)
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
		if full := p.full(); full != "" {
			p.Record(Record{Time: time.Now(), Outcome: decision.Denied, Layer: LayerLimit, Reason: full})
			reset(conn)
			continue
		}
		p.open.Add(1)
		p.handlers.Go(func() {
			f := p.newFlow(ctx, conn, new(endpoint))
			if !crash.Contain("a connection of the workload", func() { p.handle(f, conn) }) {
				crash.Contain("its end", func() {
					defer f.abort()
					f.deny(LayerConnection, "the supervisor failed: see its log")
				})
			}
		})
	}
}

// handle takes one intercepted connection.
func (p *Proxy) handle(f *tcpFlow, conn *net.TCPConn) {
	p.track(f, true)

	src, dst, err := p.Original(conn)
	if err != nil {
		f.deny(LayerConnection, err.Error())
		f.abort()
		return
	}
	to := &endpoint{port: dst.Port()}
	to.process, to.processErr = p.Identify(src, dst)
	client := clientConn{TCPConn: conn}
	if dst.Port() == netns.ExplicitProxyPort && (dst.Addr() == netns.ProxyAddr4 || dst.Addr() == netns.ProxyAddr6) {
		to.host = dst.Addr().String()
		f.to.Store(to)
		p.toProxy.enqueue(newServerConn(newFlowConn(client, f), &httpFlow{tcpFlow: f}))
		return
	}
	to.host = p.hostOf(to, dst.Addr())
	f.to.Store(to)
	if f.local() {
		f.runLocal(client)
		return
	}
	f.run(client)
}

// hostOf returns the name that the workload connected to, or the address where
// it used none. Of several names that the hosts file has for one address, it
// is the first that the policy allows.
func (p *Proxy) hostOf(to *endpoint, a netip.Addr) string {
	if name, ok := p.Names.Name(a); ok {
		return name
	}
	aliases := p.Hosts.Names(a)
	if len(aliases) == 0 {
		return a.Unmap().String()
	}
	snapshot := p.Snapshot()
	for _, name := range aliases {
		c := to.connection()
		c.Host = name
		if snapshot.Connect(c).Ruled() {
			return name
		}
	}
	return aliases[0]
}

// Reconsider closes the connections that are no longer allowed. Call it after the snapshot has changed.
func (p *Proxy) Reconsider() {
	snapshot := p.Snapshot()
	for _, f := range p.flowsNow() {
		if f.admitted.Load() && !f.stillAllowed(snapshot) {
			f.retire()
		}
	}
	p.closeAssociations(snapshot)
}

func (p *Proxy) flowsNow() []*tcpFlow {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.flows))
}

// track has a flow end with the proxy. counted: it counts against MaxConnections.
func (p *Proxy) track(f *tcpFlow, counted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows[f] = counted
	p.peak = max(p.peak, len(p.flows))
}

func (p *Proxy) forget(f *tcpFlow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counted, tracked := p.flows[f]
	if !tracked {
		return
	}
	delete(p.flows, f)
	if counted {
		p.open.Add(-1)
	}
	p.giveBack()
}

// replace puts a tunnel's flow in the place of the one its client came by. ok
// is false where either has ended meanwhile.
func (p *Proxy) replace(client, tunnel *tcpFlow) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, clientOpen := p.flows[client]
	_, tunnelOpen := p.flows[tunnel]
	if !clientOpen || !tunnelOpen {
		return false
	}
	delete(p.flows, client)
	p.flows[tunnel] = true
	return true
}

// reset closes a connection so that the workload sees it refused, not ended.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
