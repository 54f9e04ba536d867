package proxy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// serveExplicit answers clients that are configured for an HTTP proxy: CONNECT
// (RFC 9110 section 9.3.6) and requests in absolute form (RFC 9112 section
// 3.2.2). What they ask for is decided like any other connection.
func (p *Proxy) serveExplicit(w http.ResponseWriter, r *http.Request) {
	client := flowOf(r.Context())
	switch {
	case r.Method == http.MethodConnect:
		p.serveConnect(w, r, client)
	case r.URL.IsAbs():
		p.serveForward(w, r, client)
	default:
		badTarget("an HTTP proxy takes CONNECT or a request in absolute form").write(w)
	}
}

func badTarget(detail string) *refusal {
	return &refusal{status: http.StatusBadRequest, layer: LayerHTTP, reason: detail,
		body: refusalBody{Error: "invalid_request_target", Detail: detail}}
}

// branch returns a flow to one destination on behalf of a client's connection
// to the proxy.
func (p *Proxy) branch(ctx context.Context, client *flow, host string, port uint16) *flow {
	if a, err := netip.ParseAddr(host); err == nil {
		host = p.hostOf(a)
	}
	f := &flow{p: p, proc: client.proc, procErr: client.procErr,
		host: strings.ToLower(strings.TrimSuffix(host, ".")), port: port}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request, client *flow) {
	host, port, ok := splitTarget(r.Host, "")
	if !ok {
		badTarget("CONNECT wants host:port").write(w)
		return
	}
	f := p.branch(client.ctx, client, host, port)
	upstream, plan, refused := f.admit()
	if refused != nil {
		f.refusal = refused
		f.recordRefusal(Connect)
		f.cancel()
		refused.write(w)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		upstream.Close()
		f.cancel()
		badTarget("CONNECT needs HTTP/1.1").write(w)
		return
	}
	// The tunnel takes the connection over from the proxy's own flow.
	f.client = conn.(*flowConn).Conn.(*net.TCPConn)
	f.prefix = buffered(buf.Reader)
	f.cancel = client.cancel // frees both: f's context is client's child
	p.replace(client, f)
	if _, err := f.client.Write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		upstream.Close()
		f.finish()
		return
	}
	f.relay(upstream, plan)
}

func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered()) // never more than is there
	return append([]byte(nil), b...)
}

// replace puts a tunnel's flow in the place of the one its client came by.
func (p *Proxy) replace(old, f *flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.flows[old]; ok {
		delete(p.flows, old)
		p.flows[f] = struct{}{}
		return
	}
	f.cancel() // the proxy is closing
}

func (p *Proxy) serveForward(w http.ResponseWriter, r *http.Request, client *flow) {
	if r.URL.Scheme != "http" {
		badTarget("Use CONNECT for HTTPS URLs").write(w)
		return
	}
	host, port, ok := splitTarget(r.URL.Host, "80")
	if !ok {
		badTarget("the URL has no valid host and port").write(w)
		return
	}
	f := p.branch(r.Context(), client, host, port)
	f.scheme = "http"
	f.setTLS(TLSNone)
	defer f.finish()
	r = originForm(r)
	upstream, _, refused := f.admit()
	if refused != nil {
		f.refuse(w, r, refused)
		return
	}
	f.offer(upstream)
	f.serve(w, r)
}

// originForm returns the request as it would have come to the origin itself.
// The authority is the URL's, whatever Host says (RFC 9112 section 3.2.2).
func originForm(r *http.Request) *http.Request {
	out := r.Clone(r.Context())
	out.RequestURI = (&url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}).RequestURI()
	out.Host = r.URL.Host
	return out
}

// splitTarget splits host:port; defaultPort stands in for a missing one.
func splitTarget(target, defaultPort string) (host string, port uint16, ok bool) {
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		if defaultPort == "" {
			return "", 0, false
		}
		host, portText = strings.Trim(target, "[]"), defaultPort
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, false
	}
	return host, uint16(n), true
}
