// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/names"
)

const (
	// localPort is the only port of names.LocalHost: what it has to say never
	// leaves the machine.
	localPort     = 80
	localBody     = 64 << 10
	localBodyWait = 15 * time.Second
)

// Caller tells Config.Local which process asks.
func Caller(ctx context.Context) (p identity.Process, ok bool) {
	h := flowOf(ctx)
	if h == nil || h.endpoint().processErr != nil {
		return identity.Process{}, false
	}
	return h.endpoint().process, true
}

// local reports whether the flow is for Config.Local.
func (f *tcpFlow) local() bool { return f.p.Local != nil && f.endpoint().host == names.LocalHost }

// refusedLocal returns why Config.Local does not answer, or nil.
func (e *endpoint) refusedLocal() *refusal {
	switch {
	case e.processErr != nil:
		return refusedPolicy(LayerIdentity, e.processErr.Error())
	case e.port != localPort:
		return notLocal()
	}
	return nil
}

func notLocal() *refusal {
	const hint = "use http://" + names.LocalHost + "/, without TLS and on port 80"
	return &refusal{status: http.StatusForbidden, layer: LayerConnection, reason: hint,
		body: refusalBody{Error: "unsupported_scheme", Detail: hint}}
}

// runLocal carries a connection to names.LocalHost, which goes nowhere.
func (f *tcpFlow) runLocal(client clientConn) {
	if refused := f.endpoint().refusedLocal(); refused != nil {
		f.explain(client, refused)
		return
	}
	s, said := listen(client, client.said, helloWait)
	client.said = said
	if s != speaksHTTP {
		f.explain(client, notLocal())
		return
	}
	f.tls.Store(TLSNone)
	f.recordLocal()
	h := &httpFlow{tcpFlow: f, scheme: "http"}
	h.serveHTTP(newFlowConn(client, f), speaksHTTP2(said))
}

func (f *tcpFlow) recordLocal() {
	f.record(Record{Kind: Connect, Outcome: decision.Allowed, Layer: LayerConnection})
}

// serveLocal has Config.Local answer a request whose body is here.
func (h *httpFlow) serveLocal(w http.ResponseWriter, r *http.Request) {
	if _, ok := h.hostHeader(r.Host); !ok {
		h.refuse(w, r, h.refusedAuthority(r.Host))
		return
	}
	_, free, refused := h.readBody(w, r, localBody, localBodyWait)
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	defer free()
	r.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	h.p.Local.ServeHTTP(w, r)
}
