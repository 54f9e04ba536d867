// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"openshell.ai/openshell/internal/decision"
)

const (
	// expectWait is how long an origin may think before a body that the client
	// announced with Expect: 100-continue is sent anyway (RFC 9110 section
	// 10.1.1).
	expectWait = time.Second
	// maxResponseHeader bounds what an origin may make the proxy hold.
	maxResponseHeader = 1 << 20
	copyBuffer        = 64 << 10
	// streamBuffer is how much of an answer in HTTP/2 may come before the client
	// takes it; net/http's own choice, four times that, is a client's.
	streamBuffer = 1 << 20
	// flushInterval is how long part of an answer of known length may wait for
	// the rest: enough for a short one to leave in one piece, header and all.
	// ReverseProxy does not let answers of unknown length, such as streams, wait.
	flushInterval = 2 * time.Millisecond
)

// offer makes an upstream connection the first one that the flow's requests
// use. Later ones, where the origin closed it, go to the same addresses.
func (h *httpFlow) offer(upstream net.Conn) {
	h.unused.Store(&upstream)
	h.authority = h.endpoint().hostPort()
	if origin, ok := upstream.(*tls.Conn); ok {
		h.http2 = origin.ConnectionState().NegotiatedProtocol == "h2"
	}
	h.transport = h.newTransport()
	h.http.Store(h)
}

func (h *httpFlow) newTransport() *http.Transport {
	t := &http.Transport{
		DialContext:            h.dialOrigin,
		DialTLSContext:         h.dialOrigin,
		DisableCompression:     true, // bodies pass as they are
		ForceAttemptHTTP2:      h.http2 && h.scheme == "https",
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        h.p.IdleTimeout,
		ExpectContinueTimeout:  expectWait,
		MaxResponseHeaderBytes: maxResponseHeader,
		WriteBufferSize:        16 << 10,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: streamBuffer,
			MaxReceiveBufferPerConnection: maxUnreadBack},
	}
	if h.http2 && h.scheme == "http" {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

func (h *httpFlow) dialOrigin(ctx context.Context, _, _ string) (net.Conn, error) {
	if first := h.unused.Swap(nil); first != nil {
		// The client may have thought for longer than the origin waits.
		if alive(tcpOf(*first)) {
			return h.reading(*first), nil
		}
		(*first).Close()
	}
	conn, err := h.dial(ctx)
	if err != nil {
		return nil, err
	}
	h.conns.own(conn)
	if h.scheme != "https" {
		return h.reading(conn), nil
	}
	secured, err := h.secure(ctx, conn)
	if err != nil {
		return nil, err
	}
	return h.reading(secured), nil
}

// reading has the heads of answers read on a connection to the origin.
func (h *httpFlow) reading(origin net.Conn) net.Conn {
	if h.http2 {
		return origin
	}
	return &answerConn{Conn: origin, of: &h.answers}
}

func tcpOf(c net.Conn) *net.TCPConn {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	return c.(*net.TCPConn)
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// continued keeps an origin's 100 (Continue) from the client. The server answers
// that itself when the body is read, which it is when the origin's has come; with
// both, the client would get one or two, as it happens.
type continued struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (c continued) WriteHeader(status int) {
	if status != http.StatusContinue {
		c.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap is for http.ResponseController.
func (c continued) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// pass sends an exchange's request to the origin and the answer back.
func (h *httpFlow) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	if r.ContentLength != 0 {
		// Origins may answer before they have read the whole body. HTTP/2 always
		// lets them, and says that it is not supported.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	x.header = w.Header()
	if r.ProtoMajor == 1 {
		h.answers.spelling.Store(nil)
		w = spelled{w, &h.answers}
	}
	if r.Header.Get("Expect") != "" {
		w = continued{w}
	}
	h.p.forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
}

// newForwarder returns the reverse proxy that all flows share.
func newForwarder() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      byFlow{},
		FlushInterval:  flushInterval,
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		ModifyResponse: answered,
		ErrorHandler:   unanswered,
	}
}

// rewrite makes the origin see what the client sent, the target byte for byte:
// what it can be read as was decided on.
func rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	out := pr.Out
	out.URL = x.request.Target.URL(x.flow.scheme, x.flow.authority)
	out.Host = pr.In.Host
	// ReverseProxy drops these, for servers that would believe them. Here they
	// are the workload's own words to the origin.
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := pr.In.Header[name]; ok {
			out.Header[name] = values
		}
	}
	if conn, ok := pr.In.Context().Value(connKey{}).(*serverConn); ok && !x.request.Upgrade {
		conn.names.apply(out.Header)
	}
	if trailer := pr.In.Trailer; trailer != nil && out.Body != nil {
		dropBadTrailers(trailer) // of those announced
		out.Trailer, out.Body = trailer, &trailedBody{out.Body, trailer}
	}
	switch {
	case len(x.request.Upgrades) > 0:
		out.Header["Upgrade"] = []string{strings.Join(x.request.Upgrades, ", ")}
	case !x.request.Upgrade: // the reverse proxy would pass h2c on
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	case x.decidesText:
		offerPlainText(out.Header)
	}
}

// trailedBody is a body at whose end a server fills in the trailer fields.
type trailedBody struct {
	io.ReadCloser
	trailer http.Header
}

// Read implements io.Reader.
func (b *trailedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		dropBadTrailers(b.trailer)
	}
	return n, err
}

// dropBadTrailers removes what must not come behind a body, because a server
// that took it for header fields would read another request (RFC 9110 section
// 6.5.1).
func dropBadTrailers(trailer http.Header) {
	for name := range trailer {
		if !httpguts.ValidTrailerHeader(name) {
			delete(trailer, name)
		}
	}
}

// answered records the origin's answer. An origin may end HTTP only by agreeing to a protocol that the client
// asked for.
func answered(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if resp.StatusCode == http.StatusSwitchingProtocols {
		check := checkWebSocket
		if !x.request.Upgrade {
			check = checkUpgrade
		}
		if err := check(resp.Request, resp); err != nil {
			return err
		}
		if x.decidesText {
			origin, ok := resp.Body.(io.ReadWriteCloser)
			if !ok {
				return errUnasked
			}
			resp.Body = x.read(origin)
		}
	}
	if resp.StatusCode == http.StatusBadRequest {
		x.flow.badRequests.Add(1)
	}
	if resp.Header["Content-Type"] == nil {
		x.header["Content-Type"] = nil // or else the server guesses one
	}
	x.done(resp.StatusCode)
	return nil
}

// unanswered explains to the client that the origin gave no answer.
func unanswered(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	if r.Context().Err() != nil { // the client left, or the flow was ended
		x.done(0)
		panic(http.ErrAbortHandler)
	}
	refused := x.flow.endpoint().refusedUpstream(err)
	// In TLS 1.3 an origin refuses a client without a certificate after the handshake.
	if x.flow.wantsCert {
		err = fmt.Errorf("%w: %w", errClientCertificate, err)
	}
	if certificate := new(tls.CertificateVerificationError); errors.As(err, &certificate) ||
		errors.Is(err, errClientCertificate) {
		refused = x.flow.endpoint().refusedCertificate(err)
	}
	if x.rec.Outcome == decision.Allowed { // otherwise there is one, which says what the policy lacks
		x.rec.Reason = err.Error()
	}
	x.done(refused.status)
	refused.writeFor(w, "", false, nil)
}

// byFlow sends each request over its own flow's upstream connections.
type byFlow struct{}

func (byFlow) RoundTrip(r *http.Request) (*http.Response, error) {
	h := exchangeOf(r.Context()).flow
	h.answers.asked.Add(1)
	return h.transport.RoundTrip(r)
}

// buffers pools the reverse proxy's copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if v, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return v[:]
	}
	return new([copyBuffer]byte)[:]
}

func (b *buffers) Put(s []byte) { b.pool.Put((*[copyBuffer]byte)(s)) }
