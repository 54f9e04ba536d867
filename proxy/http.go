// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"sync"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/memory"
)

// exchange is a request that was let through, until its response has ended.
type exchange struct {
	flow    *flow
	request policy.Request
	rec     Record
	free    func()      // gives the memory of request.Body back; may be nil
	header  http.Header // of the answer
	upgrade bool        // it asks for a WebSocket
	blind   bool        // on which nobody decides the text
	once    sync.Once

	textAllowed bool // a message was; the reading goroutine's
}

// done records the exchange, once its status is known.
func (x *exchange) done(status int) {
	x.once.Do(func() {
		x.rec.Status = status
		x.flow.record(x.rec)
	})
}

// serveIntercepted answers one request on a connection that the workload
// opened for an origin.
func serveIntercepted(w http.ResponseWriter, r *http.Request) {
	reached(r.Context())
	f := flowOf(r.Context())
	if f.refusal != nil {
		f.refuse(w, r, f.refusal)
		return
	}
	if f.local() {
		f.serveLocal(w, r)
		return
	}
	f.serve(w, r)
}

// serve decides a request and passes it on. Every request is decided anew,
// under the policy of its own moment.
func (f *flow) serve(w http.ResponseWriter, r *http.Request) {
	defer f.p.requests.Add(-1)
	if f.p.requests.Add(1) > int64(f.p.MaxConnections) {
		f.refuse(w, r, refusedRequests(f.p.MaxConnections))
		return
	}
	if memory.Tight() {
		f.refuse(w, r, refusedMemory())
		return
	}
	if no := ambiguous(r); no != nil {
		f.refuse(w, r, no)
		return
	}
	if r.Method == http.MethodConnect {
		f.refuse(w, r, refusedTunnel())
		return
	}
	host, ok := f.hostHeader(r.Host)
	if !ok || r.URL.User != nil {
		f.refuse(w, r, f.refusedAuthority(r.Host))
		return
	}
	r.Host = host
	view := f.p.View()
	x, refused := f.decide(w, r, view)
	if refused != nil {
		f.refuse(w, r, refused)
		return
	}
	defer f.conclude(x)
	if !f.begin(x, view) {
		x.rec.Outcome, x.rec.Evidence, x.rec.Layer, x.rec.Reason = Denied, false, LayerL4, "policy changed"
		f.abort()
		panic(http.ErrAbortHandler)
	}
	f.pass(w, r, x)
}

// decide returns the exchange that the view lets the request begin, or why it
// does not. Where its body decides, it reads that first.
func (f *flow) decide(w http.ResponseWriter, r *http.Request, view View) (*exchange, *refusal) {
	g := f.grant(view)
	request, verdict, err := g.match.Target(r.Method, r.RequestURI)
	if err != nil {
		return nil, refusedTarget(err)
	}
	if decided := g.connection(); decided.Outcome == Denied {
		return nil, f.refusedConnection(decided)
	}
	x := &exchange{flow: f, request: request, upgrade: asksForWebSocket(r)}
	if x.upgrade && r.ContentLength != 0 {
		// An origin may take it for the first messages.
		return nil, refusedBody(http.StatusBadRequest, "invalid_request_body", "a WebSocket handshake has no body")
	}
	if x.upgrade {
		x.request.Upgrade = true
		verdict = g.match.Request(x.request)
	}
	inspection := g.inspection(x.request)
	if inspection.MaxBody > 0 {
		var no *refusal
		if x.request.Body, x.free, no = f.readBody(w, r, inspection.MaxBody, bodyWait); no != nil {
			return nil, no
		}
		x.request.ContentType = r.Header.Get("Content-Type")
		verdict = g.match.Request(x.request)
	}
	x.blind = x.upgrade && !inspection.Text
	decided := g.judgeRequest(x.request, verdict)
	if decided.Outcome == Denied {
		x.release()
		return nil, f.refusedRequest(decided, r.Method, request.Path)
	}
	x.rec = decided.Record
	x.rec.Method, x.rec.Scheme, x.rec.Path = r.Method, f.scheme, request.Path
	return x, nil
}

// release gives back what the exchange held. It may be called again.
func (x *exchange) release() {
	if x.free != nil {
		x.free()
		x.free = nil
	}
}

// begin notes that an exchange that a view allowed is under way. It returns
// false where the view has changed meanwhile and no longer does.
func (f *flow) begin(x *exchange, view View) bool {
	if x.rec.Evidence {
		f.evident.Store(true)
	}
	f.mu.Lock()
	if f.exchanges == nil {
		f.exchanges = make(map[*exchange]struct{})
	}
	f.exchanges[x] = struct{}{}
	f.mu.Unlock()
	now := f.p.View()
	return now == view || f.standsUnder(now)
}

func (f *flow) conclude(x *exchange) {
	f.mu.Lock()
	delete(f.exchanges, x)
	f.mu.Unlock()
	x.release()
	x.done(0) // where the client or the origin left before an answer
}

// refuse answers a request with a refusal and records it.
func (f *flow) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	f.owed.Store(nil)
	rec := Record{Kind: Request, Outcome: Denied, Layer: no.layer, Policy: no.policy, Reason: no.reason,
		Method: r.Method, Scheme: f.scheme, Status: no.status, Evidence: no.evidence,
		Protocol: no.protocol, EndpointPath: no.endpointPath, Missing: no.missing}
	target, err := policy.ParseTarget(r.Method, r.RequestURI)
	if err != nil {
		rec.Evidence = false // nothing that could be allowed
	} else if matches := target.Matches(r.Method); len(matches) > 1 && rec.Protocol == "" {
		with := *no // which answers other requests too
		with.missing, rec.Missing = matches, matches
		no = &with
	}
	path := target.Path()
	rec.Path = path
	f.record(rec)
	if no.status == http.StatusBadRequest {
		f.told400.Add(1)
	}
	no.writeFor(w, r.Method+" "+f.hostPort()+path, f.forward, f.nextSteps(no, r.Method, path))
}
