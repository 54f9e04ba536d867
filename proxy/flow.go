// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/identity"
)

// flow is one connection of the workload to one destination, from accept to
// close.
type flow struct {
	p      *Proxy
	began  time.Time
	ctx    context.Context
	cancel context.CancelFunc

	// These are set by one goroutine before admitted is.
	prefix  []byte // what the client already said to an explicit proxy
	host    string // a name in lower case, or an IP address
	port    uint16
	udp     bool
	proc    identity.Process
	procErr error
	addrs   []netip.AddrPort // resolved, guarded: the only ones to dial
	counted bool             // against Config.MaxConnections; guarded by p.mu
	forward bool             // for one request in absolute form

	// These are set before the flow is given to a server.
	refusal    *refusal // answers every request, where set
	scheme     string
	authority  string // of the origin: its host and port
	serverName string // the origin's name in TLS
	http2      bool   // that is what both ends speak

	first     atomic.Pointer[net.Conn] // an upstream connection not yet used
	admitted  atomic.Bool              // it got past the layers that permissive mode relaxes
	unseen    atomic.Bool              // what it carries is not looked into
	evident   atomic.Bool              // evidence of what it carries is recorded
	forgiven  atomic.Bool              // permissive mode let the connection through
	granted   atomic.Pointer[grant]    // under the latest view
	malformed atomic.Int32             // errors of HTTP/2 recorded
	told400   atomic.Int32             // answers of status 400 that are not the server's own
	owed      atomic.Pointer[refusal]  // a refusal that is neither told nor recorded yet

	mu        sync.Mutex   // guards what follows
	client    *net.TCPConn // nil while the connection is another flow's
	ended     bool
	tls       string
	transport *http.Transport
	origins   map[*net.TCPConn]struct{} // the transport's connections
	exchanges map[*exchange]struct{}    // under way
	socket    *socket                   // what it has become, where messages are decided
	idle      *time.Timer               // see watchIdle

	end sync.Once
}

func (p *Proxy) newFlow(ctx context.Context) *flow {
	f := &flow{p: p, began: time.Now(), origins: make(map[*net.TCPConn]struct{})}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

func (f *flow) connection() policy.Connection {
	c := policy.Connection{Binary: f.proc.Path, Ancestors: f.proc.Ancestors, Aliases: f.proc.Aliases, Host: f.host, Port: f.port}
	if f.udp {
		c.Protocol = policy.ProtocolUDP
	}
	return c
}

func (f *flow) hostPort() string {
	return net.JoinHostPort(f.host, strconv.Itoa(int(f.port)))
}

// standsUnder tells whether a view allows an admitted flow, the addresses that its
// host had, and what goes on in it. What was not looked into cannot stay where requests or messages have to
// be decided.
func (f *flow) standsUnder(view View) bool {
	g := f.grant(view)
	decided := g.connection()
	if decided.Outcome == Denied || f.unseen.Load() && g.mustSee() {
		return false
	}
	for _, a := range f.addrs { // and those of later connections to the origin
		if f.checkAddress(g, a.Addr()) != nil {
			return false
		}
	}
	if decided.Outcome == Logged {
		f.forgiven.Store(true)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.exchanges {
		if g.request(x.request).Outcome == Denied || x.blind && g.mustSeeText(x.request) {
			return false
		}
	}
	return true
}

// goUnseen notes that nobody looks into the flow from here on. Where the view
// has changed so that somebody must, it ends the flow and returns false.
func (f *flow) goUnseen() bool {
	f.unseen.Store(true)
	if f.standsUnder(f.p.View()) {
		return true
	}
	f.abort()
	return false
}

// record fills in what every record of the flow says.
func (f *flow) record(r Record) {
	r.Time = time.Now()
	r.Process, r.Host, r.Port = f.proc, f.host, f.port
	f.mu.Lock()
	r.TLS = f.tls
	f.mu.Unlock()
	for _, a := range f.addrs {
		r.Addrs = append(r.Addrs, a.Addr())
	}
	if r.Evidence {
		f.evident.Store(true)
	}
	if r.Kind == Connect && r.Outcome == Logged {
		f.forgiven.Store(true)
	}
	f.p.Record(r)
}

func (f *flow) setTLS(how string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tls = how
}

// deny records that the flow is cut off for a reason that no policy changes,
// so that there is nothing to learn from it.
func (f *flow) deny(layer, reason string) {
	f.evident.Store(true)
	f.record(Record{Kind: Connect, Outcome: Denied, Layer: layer, Reason: reason})
}

// owe notes a refusal that is recorded when it is told, or at the flow's end.
func (f *flow) owe(r *refusal) {
	f.refusal = r
	f.owed.Store(r)
}

// recordOwed records a refusal that could not be told.
func (f *flow) recordOwed(kind Kind) {
	if r := f.owed.Swap(nil); r != nil {
		f.record(Record{Kind: kind, Outcome: Denied, Evidence: r.evidence, Layer: r.layer, Reason: r.reason})
	}
}

// recordCarried records, as evidence, that the flow carries something other
// than HTTP, or nothing, where the policy does not allow the connection. One that
// is cut off because it no longer does was allowed as long as it lasted.
func (f *flow) recordCarried(kind Kind, skip bool) {
	g := f.grant(f.p.View())
	if g.match.Allowed || !f.forgiven.Load() || f.evident.Swap(true) {
		return
	}
	f.record(Record{Kind: kind, Outcome: Logged, Evidence: true, Layer: LayerL4, Reason: g.match.Reason, TLSSkip: skip})
}

// take gives the flow the client's connection. It returns false where the flow
// has ended.
func (f *flow) take(client *net.TCPConn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.client = client
	}
	return !f.ended
}

// abort closes the flow at once, telling the workload so.
func (f *flow) abort() {
	f.mu.Lock()
	client := f.client
	f.mu.Unlock()
	if client != nil {
		_ = client.SetLinger(0)
	}
	f.finish()
}

// retire ends a flow that is no longer allowed. Only a WebSocket has words for
// that.
func (f *flow) retire() {
	f.mu.Lock()
	s := f.socket
	f.mu.Unlock()
	if s == nil {
		f.abort()
		return
	}
	time.AfterFunc(2*closeWait, f.abort)
	go crash.Contain("a WebSocket", func() { s.close(statusServiceRestart, "the policy has changed") })
}

// finish ends the flow; it may be called any number of times.
func (f *flow) finish() {
	f.end.Do(func() {
		defer f.p.forget(f)
		defer f.close() // whatever becomes of the record
		f.recordOwed(Connect)
		if f.admitted.Load() {
			f.recordCarried(Connect, false)
		}
	})
}

// close closes everything that the flow has.
func (f *flow) close() {
	f.cancel()
	f.mu.Lock()
	f.ended = true
	client, transport := f.client, f.transport
	if f.idle != nil {
		f.idle.Stop()
	}
	f.mu.Unlock()
	if client != nil {
		client.Close()
	}
	if first := f.first.Swap(nil); first != nil {
		(*first).Close()
	}
	if transport != nil {
		transport.CloseIdleConnections()
	}
	for conn := range f.origins { // there will be no more: it has ended
		conn.Close()
	}
}
