package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"

	"openshell.ai/openshell/policy"
)

// offer makes an upstream connection the first one that the flow's requests
// use. Later ones, where the origin closed it, go to the same addresses.
func (f *flow) offer(upstream net.Conn) {
	f.first.Store(&upstream)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.transport = f.newTransport()
}

func (f *flow) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:         f.dialOrigin,
		DialTLSContext:      f.dialOrigin,
		DisableCompression:  true, // bodies pass as they are
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     f.p.IdleTimeout,
		WriteBufferSize:     32 << 10,
		ReadBufferSize:      32 << 10,
	}
}

func (f *flow) dialOrigin(ctx context.Context, _, _ string) (net.Conn, error) {
	if first := f.first.Swap(nil); first != nil {
		return *first, nil
	}
	conn, err := f.dial(ctx)
	if err != nil || f.scheme != "https" {
		return conn, err
	}
	return f.secure(ctx, conn)
}

// serveIntercepted answers one request on a connection that the workload
// opened for an origin.
func serveIntercepted(w http.ResponseWriter, r *http.Request) {
	f := flowOf(r.Context())
	if f.refusal != nil {
		f.refuse(w, r, f.refusal)
		return
	}
	f.serve(w, r)
}

// serve decides a request and passes it on. Every request is decided anew,
// under the policy of its own moment.
func (f *flow) serve(w http.ResponseWriter, r *http.Request) {
	if !f.authorised(r.Host) {
		f.refuse(w, r, f.refusedAuthority(r.Host))
		return
	}
	view := f.p.View()
	match := view.Engine.Connect(f.connection())
	path, query, err := policy.CanonicalTarget(r.RequestURI, match.AllowEncodedSlash)
	if err != nil {
		f.refuse(w, r, refusedTarget(err))
		return
	}
	layer := LayerL7
	if !match.Allowed {
		layer = LayerL4
	}
	verdict := match.Request(policy.Request{Method: r.Method, Path: path, RawQuery: query})
	rec := Record{Kind: Request, Outcome: Allowed, Layer: layer, Policy: verdict.Policy, Reason: verdict.Reason,
		Method: r.Method, Scheme: f.scheme, Path: path}
	switch {
	case verdict.Decision == policy.Audit:
		rec.Outcome = Audited
	case verdict.Decision == policy.Deny && view.Permissive:
		rec.Outcome, rec.Evidence = Logged, true
	case verdict.Decision == policy.Deny:
		f.refuse(w, r, f.refusedRequest(layer, verdict, r.Method, path))
		return
	}
	f.pass(w, r, rec, query)
}

// authorised tells whether a request's authority is the flow's own host and
// port.
func (f *flow) authorised(authority string) bool {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		return f.namesHost(authority)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && uint16(n) == f.port && f.namesHost(host)
}

// refuse answers a request with a refusal and records it.
func (f *flow) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	rec := Record{Kind: Request, Outcome: Denied, Layer: no.layer, Policy: no.policy, Reason: no.reason,
		Method: r.Method, Scheme: f.scheme, Status: no.status, Evidence: no.evidence}
	path, _, err := policy.CanonicalTarget(r.RequestURI, true)
	if err != nil {
		rec.Evidence = false // nothing that could be allowed
	} else {
		rec.Path = path
	}
	f.record(rec)
	no.write(w)
}

// exchange is a request on its way through the reverse proxy.
type exchange struct {
	flow  *flow
	rec   Record
	query string
	once  sync.Once
}

// done records the exchange, once its status is known.
func (x *exchange) done(status int) {
	x.once.Do(func() {
		x.rec.Status = status
		x.flow.record(x.rec)
	})
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

func (f *flow) pass(w http.ResponseWriter, r *http.Request, rec Record, query string) {
	x := &exchange{flow: f, rec: rec, query: query}
	f.p.forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	x.done(0) // the client left before the answer came
}

// newForwarder returns the reverse proxy that all flows share.
func newForwarder() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     byFlow{},
		FlushInterval: -1, // streams must not wait for a buffer to fill
		BufferPool:    &buffers{},
		ErrorLog:      slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		ModifyResponse: func(resp *http.Response) error {
			exchangeOf(resp.Request.Context()).done(resp.StatusCode)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			x := exchangeOf(r.Context())
			no := x.flow.refusedUpstream(err)
			x.done(no.status)
			no.write(w)
		},
	}
}

// rewrite makes the origin see the very path that was decided on.
func rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	out := pr.Out
	decoded, err := url.PathUnescape(x.rec.Path)
	if err != nil { // a canonical path always decodes
		decoded = x.rec.Path
	}
	out.URL = &url.URL{
		Scheme:   x.flow.scheme,
		Host:     x.flow.hostPort(),
		Path:     decoded,
		RawPath:  x.rec.Path,
		RawQuery: x.query,
	}
	out.Host = pr.In.Host
}

// byFlow sends each request over its own flow's upstream connections.
type byFlow struct{}

func (byFlow) RoundTrip(r *http.Request) (*http.Response, error) {
	return exchangeOf(r.Context()).flow.transport.RoundTrip(r)
}

// buffers pools the reverse proxy's copy buffers.
type buffers struct{ pool sync.Pool }

const copyBuffer = 64 << 10

func (b *buffers) Get() []byte {
	if v, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return v[:]
	}
	return new([copyBuffer]byte)[:]
}

func (b *buffers) Put(s []byte) { b.pool.Put((*[copyBuffer]byte)(s)) }
