// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/http"
	"net/url"
	"time"

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
	f := flowOf(ctx)
	if f == nil || f.procErr != nil {
		return identity.Process{}, false
	}
	return f.proc, true
}

// local tells whether the flow is for Config.Local.
func (f *flow) local() bool { return f.p.Local != nil && f.host == names.LocalHost }

// refusedLocal returns why Config.Local does not answer, or nil.
func (f *flow) refusedLocal() *refusal {
	switch {
	case f.procErr != nil:
		return f.refusedPolicy(LayerIdentity, f.procErr.Error())
	case f.port != localPort:
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
func (f *flow) runLocal() {
	if refused := f.refusedLocal(); refused != nil {
		f.explain(refused)
		return
	}
	s, prefix := listen(f.client, f.prefix, helloWait)
	if s != speaksHTTP {
		f.prefix = prefix
		f.explain(notLocal())
		return
	}
	f.setTLS(TLSNone)
	f.scheme = "http"
	f.recordLocal()
	f.serveHTTP(&flowConn{Conn: f.client, flow: f, prefix: prefix}, speaksHTTP2(prefix))
}

func (f *flow) recordLocal() {
	f.record(Record{Kind: Connect, Outcome: Allowed, Layer: LayerConnection})
}

// serveLocal has Config.Local answer a request whose body is here.
func (f *flow) serveLocal(w http.ResponseWriter, r *http.Request) {
	if _, ok := f.hostHeader(r.Host); !ok {
		f.refuse(w, r, f.refusedAuthority(r.Host))
		return
	}
	_, free, no := f.readBody(w, r, localBody, localBodyWait)
	if no != nil {
		f.refuse(w, r, no)
		return
	}
	defer free()
	r.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	f.p.Local.ServeHTTP(w, r)
}
