// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
)

// serveExplicit answers clients that are configured for an HTTP proxy: CONNECT
// (RFC 9110 section 9.3.6) and requests in absolute form (RFC 9112 section
// 3.2.2). What they ask for is decided like any other connection.
func (p *Proxy) serveExplicit(w http.ResponseWriter, r *http.Request) {
	markHandled(r.Context())
	client := flowOf(r.Context())
	switch {
	case r.Method == http.MethodConnect:
		p.serveConnect(w, r, client)
	case r.URL.IsAbs():
		p.serveForward(w, r, client)
	default:
		client.refuseTarget(w, "an HTTP proxy takes CONNECT or a request in absolute form")
	}
}

// refuseTarget answers a request to the proxy itself that names no destination.
func (f *tcpFlow) refuseTarget(w http.ResponseWriter, detail string) {
	f.deny(LayerHTTP, detail)
	refused := refusal{status: http.StatusBadRequest, body: refusalBody{Error: "invalid_request_target", Detail: detail}}
	refused.writeFor(w, "", false, nil)
}

// branch returns a flow to one destination on behalf of a client's connection
// to the proxy.
func (p *Proxy) branch(ctx context.Context, client *httpFlow, host string, port uint16) *tcpFlow {
	to := *client.endpoint()
	to.host, to.port = host, port
	if a, err := netip.ParseAddr(host); err == nil {
		to.host = p.hostOf(&to, a)
	}
	f := p.newFlow(ctx, nil, &to)
	p.track(f, false)
	return f
}

func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request, client *httpFlow) {
	host, port, ok := splitAuthority(r.Host)
	if !ok || port == 0 || r.URL.User != nil {
		client.refuseTarget(w, "CONNECT wants host:port")
		return
	}
	f := p.branch(client.ctx, client, host, port)
	carry, release, refused := f.prepare()
	if refused != nil {
		f.deferRefusal(refused)
		f.finish()
		to := f.endpoint()
		refused.writeFor(w, "CONNECT "+to.hostPort(), false, p.nextSteps(to, refused, "", ""))
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/1 connections can always be hijacked
		release()
		f.finish()
		panic(err)
	}
	// The tunnel takes the connection over from the client's own flow, which
	// ends with it.
	context.AfterFunc(f.ctx, client.cancel)
	tcp := conn.(*serverConn).Conn.(*flowConn).Conn.(*net.TCPConn)
	if !p.replace(client.tcpFlow, f) || !f.conns.take(tcp) {
		release()
		f.finish()
		client.abort()
		return
	}
	if _, err := tcp.Write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		release()
		f.finish()
		return
	}
	carry(clientConn{tcp, buffered(buf.Reader)})
}

// prepare decides on a tunnel. carry is what to do with the connection then,
// release what to do where it is lost before.
func (f *tcpFlow) prepare() (carry func(clientConn), release func(), refused *refusal) {
	if f.local() {
		return f.runLocal, func() {}, f.endpoint().refusedLocal()
	}
	upstream, admitted, refused := f.admit()
	carry = func(client clientConn) { f.relay(client, upstream, admitted) }
	return carry, func() { upstream.Close() }, refused
}

func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered()) // never more than is there
	return append([]byte(nil), b...)
}

func (p *Proxy) serveForward(w http.ResponseWriter, r *http.Request, client *httpFlow) {
	if r.URL.Scheme != "http" {
		client.refuseTarget(w, "Use CONNECT for HTTPS URLs")
		return
	}
	host, port, ok := splitAuthority(r.URL.Host)
	if !ok || r.URL.User != nil {
		client.refuseTarget(w, "the URL has no valid host and port")
		return
	}
	f := p.branch(r.Context(), client, host, cmp.Or(port, 80))
	defer f.finish()
	h := &httpFlow{tcpFlow: f, scheme: "http", absolute: true}
	f.tls.Store(TLSNone)
	r = r.WithContext(f.ctx)
	r.Host = r.URL.Host // whatever Host says (RFC 9112 section 3.2.2)
	if f.local() {
		if refused := f.endpoint().refusedLocal(); refused != nil {
			h.refuse(w, r, refused)
			return
		}
		f.recordLocal()
		h.serveLocal(w, r)
		return
	}
	upstream, _, refused := f.admit()
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	h.offer(upstream)
	h.serve(w, r)
}
