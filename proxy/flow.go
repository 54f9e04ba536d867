package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

const dialTimeout = 30 * time.Second

// flow is one connection of the workload to one destination, from accept to
// close.
type flow struct {
	p       *Proxy
	ctx     context.Context
	cancel  context.CancelFunc
	client  *net.TCPConn
	prefix  []byte // what the client already said to an explicit proxy
	host    string // a name in lower case, or an IP address
	port    uint16
	proc    identity.Process
	procErr error

	addrs   []netip.AddrPort         // resolved, guarded: the only ones to dial
	refusal *refusal                 // answers every request, where set
	first   atomic.Pointer[net.Conn] // an upstream connection not yet used
	scheme  string
	// serverName is the origin's name in TLS.
	serverName string

	mu        sync.Mutex // guards the next two
	tls       string
	transport *http.Transport

	evident  atomic.Bool // evidence of what the flow carries is recorded
	admitted bool        // it got past the layers that permissive mode relaxes
	end      sync.Once
}

func (f *flow) connection() policy.Connection {
	return policy.Connection{Binary: f.proc.Path, Ancestors: f.proc.Ancestors, Host: f.host, Port: f.port}
}

func (f *flow) hostPort() string {
	return net.JoinHostPort(f.host, strconv.Itoa(int(f.port)))
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

// plan is how an admitted connection is to be carried.
type plan struct {
	inspect  bool // see each HTTP request
	declared bool // because the policy names a protocol: anything else is refused
	skip     bool // the policy says tls: skip
}

// admit takes the decisions that come before the first byte, in this order:
// identity, policy, resolution, address guard. Then it dials. Only the second
// has a permissive form.
func (f *flow) admit() (net.Conn, plan, *refusal) {
	if f.procErr != nil {
		return nil, plan{}, f.refusedPolicy(LayerIdentity, f.procErr.Error())
	}
	if addr, err := netip.ParseAddr(f.host); err == nil && names.IsSynthetic(addr) {
		return nil, plan{}, f.refusedPolicy(LayerL4, "the address belongs to no name of this sandbox")
	}
	view := f.p.View()
	match := view.Engine.Connect(f.connection())
	if !match.Allowed && !view.Permissive {
		return nil, plan{}, f.refusedPolicy(LayerL4, match.Reason)
	}
	if refused := f.resolve(match); refused != nil {
		return nil, plan{}, refused
	}
	upstream, err := f.dial(f.ctx)
	if err != nil {
		return nil, plan{}, f.refusedUpstream(err)
	}
	f.admitted = true
	f.recordOpen(match)
	pinned := f.p.pinned.has(f.host, f.proc.Path)
	return upstream, plan{
		inspect:  match.Inspect && !match.TLSSkip || !match.Allowed && !pinned,
		declared: match.Inspect && !match.TLSSkip,
		skip:     match.TLSSkip || pinned,
	}, nil
}

// resolve looks the host up once and holds every address against the guard;
// one bad answer spoils them all, so that a name cannot be made to point
// inside on the second try.
func (f *flow) resolve(match policy.Match) *refusal {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	addrs, err := f.p.Resolve(ctx, f.host)
	if err != nil {
		return f.refusedUpstream(err)
	}
	for _, a := range addrs {
		if err := match.CheckAddress(a, f.port); err != nil {
			return f.refusedAddress(err)
		}
		f.addrs = append(f.addrs, netip.AddrPortFrom(a, f.port))
	}
	return nil
}

// dial connects to the first address that answers.
func (f *flow) dial(ctx context.Context) (net.Conn, error) {
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
			return conn, nil
		}
	}
	return nil, err
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
	f.p.Record(r)
}

func (f *flow) setTLS(how string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tls = how
}

func (f *flow) recordOpen(match policy.Match) {
	if match.Allowed {
		f.record(Record{Kind: Connect, Outcome: Allowed, Layer: LayerL4, Policy: match.Policy})
		return
	}
	f.record(Record{Kind: Connect, Outcome: Logged, Layer: LayerL4, Reason: match.Reason})
}

func (f *flow) deny(layer, reason string) {
	f.record(Record{Kind: Connect, Outcome: Denied, Layer: layer, Reason: reason})
}

// recordCarried records, as evidence, that the flow carries something other
// than HTTP, or nothing, where the policy does not allow the connection.
func (f *flow) recordCarried(kind Kind, skip bool) {
	view := f.p.View()
	match := view.Engine.Connect(f.connection())
	if match.Allowed || f.evident.Load() {
		return
	}
	f.record(Record{Kind: kind, Outcome: Logged, Evidence: true, Layer: LayerL4, Reason: match.Reason, TLSSkip: skip})
}

// abort closes the flow at once, telling the workload so.
func (f *flow) abort() {
	if f.client != nil {
		_ = f.client.SetLinger(0)
	}
	f.finish()
}

// finish ends the flow; it may be called any number of times.
func (f *flow) finish() {
	f.end.Do(func() {
		if f.admitted && f.host != "" {
			f.recordCarried(Connect, false)
		}
		f.cancel()
		if f.client != nil {
			f.client.Close()
		}
		if first := f.first.Swap(nil); first != nil {
			(*first).Close()
		}
		f.mu.Lock()
		if f.transport != nil {
			f.transport.CloseIdleConnections()
		}
		f.mu.Unlock()
		f.p.forget(f)
	})
}
