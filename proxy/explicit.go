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
	reached(r.Context())
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
func (f *flow) refuseTarget(w http.ResponseWriter, detail string) {
	f.deny(LayerHTTP, detail)
	no := refusal{status: http.StatusBadRequest, body: refusalBody{Error: "invalid_request_target", Detail: detail}}
	no.writeFor(w, "", false, nil)
}

// branch returns a flow to one destination on behalf of a client's connection
// to the proxy.
func (p *Proxy) branch(ctx context.Context, client *flow, host string, port uint16) *flow {
	f := p.newFlow(ctx)
	f.proc, f.procErr = client.proc, client.procErr
	f.port = port
	if a, err := netip.ParseAddr(host); err == nil {
		host = p.hostOf(f, a)
	}
	f.host = host
	p.track(f)
	return f
}

func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request, client *flow) {
	host, port, ok := splitAuthority(r.Host)
	if !ok || port == 0 || r.URL.User != nil {
		client.refuseTarget(w, "CONNECT wants host:port")
		return
	}
	f := p.branch(client.ctx, client, host, port)
	carry, release, refused := f.prepare()
	if refused != nil {
		f.owe(refused)
		f.finish()
		refused.writeFor(w, "CONNECT "+f.hostPort(), false, f.nextSteps(refused, "", ""))
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
	f.prefix = buffered(buf.Reader)
	tcp := conn.(*serverConn).Conn.(*flowConn).Conn.(*net.TCPConn)
	if !p.replace(client, f) || !f.take(tcp) {
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
	carry()
}

// prepare decides on a tunnel. carry is what to do with the connection then,
// release what to do where it is lost before.
func (f *flow) prepare() (carry, release func(), no *refusal) {
	if f.local() {
		return f.runLocal, func() {}, f.refusedLocal()
	}
	upstream, plan, no := f.admit()
	return func() { f.relay(upstream, plan) }, func() { upstream.Close() }, no
}

func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered()) // never more than is there
	return append([]byte(nil), b...)
}

func (p *Proxy) serveForward(w http.ResponseWriter, r *http.Request, client *flow) {
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
	f.scheme, f.forward = "http", true
	f.setTLS(TLSNone)
	r = r.WithContext(f.ctx)
	r.Host = r.URL.Host // whatever Host says (RFC 9112 section 3.2.2)
	if f.local() {
		if refused := f.refusedLocal(); refused != nil {
			f.refuse(w, r, refused)
			return
		}
		f.recordLocal()
		f.serveLocal(w, r)
		return
	}
	upstream, _, refused := f.admit()
	if refused != nil {
		f.refuse(w, r, refused)
		return
	}
	f.offer(upstream)
	f.serve(w, r)
}
