// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/httptarget"
	"openshell.ai/openshell/proxy/memory"
)

// httpFlow is a tcpFlow on which HTTP is served. The plain fields are set before a server has it and do not
// change then; the others synchronise themselves.
type httpFlow struct {
	*tcpFlow
	refusal    *refusal // answers every request, where set
	scheme     string
	serverName string // the origin's name in TLS
	wantsCert  bool   // the origin asked for a client certificate
	http2      bool   // that is what both ends speak
	absolute   bool   // for one request in absolute form
	authority  string // of the origin: its host and port
	transport  *http.Transport

	unused      atomic.Pointer[net.Conn] // the upstream connection of the admission, until a request uses it
	badRequests atomic.Int32             // answers of status 400 that are not the server's own
	exchanges   exchangeSet
	answers     answers // in HTTP/1
}

// serveHTTP has HTTP served on a connection, in the version that it begins with.
func (h *httpFlow) serveHTTP(conn net.Conn, version2 bool) {
	if version2 {
		h.p.toOrigin2.enqueue(&http2Conn{Conn: conn, flow: h})
		return
	}
	h.p.toOrigin.enqueue(newServerConn(conn, h))
}

// close closes what the transport does not need for a request.
func (h *httpFlow) close() {
	if conn := h.unused.Swap(nil); conn != nil {
		(*conn).Close()
	}
	h.transport.CloseIdleConnections()
}

// exchangeSet is what goes on in an httpFlow.
type exchangeSet struct {
	mu     sync.Mutex             // guards what follows
	open   map[*exchange]struct{} // under way
	socket *socket                // what one has become, where messages are decided
}

func (e *exchangeSet) add(x *exchange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		e.open = make(map[*exchange]struct{})
	}
	e.open[x] = struct{}{}
}

func (e *exchangeSet) remove(x *exchange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, x)
}

func (e *exchangeSet) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open)
}

// stillAllowed reports whether all of them may go on.
func (e *exchangeSet) stillAllowed(c *decision.Connection) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for x := range e.open {
		if c.Request(x.request).Outcome == decision.Denied || x.request.Upgrade && !x.decidesText &&
			c.TextInspectionRequired(x.request) {
			return false
		}
	}
	return true
}

// haveBodies reports whether any request under way has a body.
func (e *exchangeSet) haveBodies() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for x := range e.open {
		if x.body {
			return true
		}
	}
	return false
}

func (e *exchangeSet) setDecidedSocket(s *socket) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.socket = s
}

func (e *exchangeSet) decidedSocket() *socket {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.socket
}

// exchange is a request that was let through, until its response has ended.
type exchange struct {
	flow        *httpFlow
	request     engine.Request
	rec         Record
	free        func()      // gives the memory of request.Body back; may be nil
	header      http.Header // of the answer
	decidesText bool        // of the WebSocket that it asks for
	body        bool        // the request has one
	once        sync.Once

	textAllowed bool // a message was; the reading goroutine's
}

// done records the exchange, once its status is known.
func (x *exchange) done(status int) {
	x.once.Do(func() {
		x.rec.Status = status
		x.flow.record(x.rec)
	})
}

// serveIntercepted answers one request on a connection that the workload opened for an origin.
func serveIntercepted(w http.ResponseWriter, r *http.Request) {
	markHandled(r.Context())
	h := flowOf(r.Context())
	switch {
	case h.refusal != nil:
		h.refuse(w, r, h.refusal)
	case h.local():
		h.serveLocal(w, r)
	default:
		h.serve(w, r)
	}
}

// serve decides a request and passes it on. Every request is decided anew, under the policy of its own moment.
func (h *httpFlow) serve(w http.ResponseWriter, r *http.Request) {
	defer h.p.requests.Add(-1)
	if h.p.requests.Add(1) > int64(h.p.MaxConnections) {
		h.refuse(w, r, refusedRequests(h.p.MaxConnections))
		return
	}
	if memory.Tight() {
		h.refuse(w, r, refusedMemory())
		return
	}
	if refused := ambiguous(r); refused != nil {
		h.refuse(w, r, refused)
		return
	}
	if r.Method == http.MethodConnect {
		h.refuse(w, r, refusedTunnel())
		return
	}
	host, ok := h.hostHeader(r.Host)
	if !ok || r.URL.User != nil {
		h.refuse(w, r, h.refusedAuthority(r.Host))
		return
	}
	r.Host = host
	snapshot := h.p.Snapshot()
	x, refused := h.decideRequest(w, r, h.decide(snapshot))
	if refused != nil {
		h.refuse(w, r, refused)
		return
	}
	defer h.conclude(x)
	if !h.begin(x, snapshot) {
		x.rec.Outcome, x.rec.Evidence, x.rec.Layer, x.rec.Reason = decision.Denied, false, LayerL4, "policy changed"
		h.abort()
		panic(http.ErrAbortHandler)
	}
	h.pass(w, r, x)
}

// decideRequest returns the exchange that the request may begin, or why it may not. Where its body decides, it
// reads that first.
func (h *httpFlow) decideRequest(w http.ResponseWriter, r *http.Request, c *decision.Connection) (*exchange, *refusal) {
	request, err := newRequest(r)
	if err != nil {
		return nil, refusedTarget(err)
	}
	if d := c.Decision(); d.Outcome == decision.Denied {
		return nil, refusedConnection(d)
	}
	x := &exchange{flow: h, request: request, body: r.ContentLength != 0}
	if x.request.Upgrade && r.ContentLength != 0 {
		// An origin may take it for the first messages.
		return nil, refusedBody(http.StatusBadRequest, "invalid_request_body", "a WebSocket handshake has no body")
	}
	inspection := c.Inspection(x.request)
	if inspection.MaxBody > 0 {
		var refused *refusal
		if x.request.Body, x.free, refused = h.readBody(w, r, inspection.MaxBody, bodyWait); refused != nil {
			return nil, refused
		}
		x.request.ContentType = r.Header.Get("Content-Type")
	}
	x.decidesText = x.request.Upgrade && inspection.Text
	d := c.Request(x.request)
	if d.Outcome == decision.Denied {
		x.release()
		return nil, h.refusedRequest(d, r.Method, x.request.Path)
	}
	x.rec = recordOf(Request, d)
	x.rec.Method, x.rec.Scheme, x.rec.Path = r.Method, h.scheme, x.request.Path
	return x, nil
}

// newRequest is a request as policies see it, but for its body. The error is for a target that no request may have.
func newRequest(r *http.Request) (engine.Request, error) {
	target, err := httptarget.Parse(r.Method, r.RequestURI)
	if err != nil {
		return engine.Request{}, err
	}
	request := engine.NewRequest(r.Method, target)
	request.Upgrades = upgradesOf(r)
	if len(request.Upgrades) == 1 && strings.EqualFold(request.Upgrades[0], "websocket") {
		request.Upgrade, request.Upgrades = true, nil
	}
	return request, nil
}

// release gives back what the exchange held. It may be called again.
func (x *exchange) release() {
	if x.free != nil {
		x.free()
		x.free = nil
	}
}

// begin notes that an exchange that a snapshot allowed is under way. It returns false where the policy has
// changed meanwhile and no longer does.
func (h *httpFlow) begin(x *exchange, snapshot decision.Snapshot) bool {
	if x.rec.Evidence {
		h.evidenceRecorded.Store(true)
	}
	h.exchanges.add(x)
	now := h.p.Snapshot()
	return now == snapshot || h.stillAllowed(now)
}

func (h *httpFlow) conclude(x *exchange) {
	h.exchanges.remove(x)
	x.release()
	x.done(0) // where the client or the origin left before an answer
}

// refuse answers a request with a refusal and records it.
func (h *httpFlow) refuse(w http.ResponseWriter, r *http.Request, refused *refusal) {
	h.pendingRefusal.Store(nil)
	rec := Record{Kind: Request, Outcome: decision.Denied, Layer: refused.layer, Policy: refused.policy,
		Reason: refused.reason,
		Method: r.Method, Scheme: h.scheme, Status: refused.status, Evidence: refused.evidence,
		Protocol: refused.protocol, EndpointPath: refused.endpointPath, Missing: refused.missing}
	request, err := newRequest(r)
	if err != nil {
		rec.Evidence = false // nothing that could be allowed
	} else if matches := request.Matches(); rec.Protocol == "" && (len(matches) > 1 || len(request.Upgrades) > 0) {
		with := *refused // which answers other requests too
		with.missing, rec.Missing = matches, matches
		refused = &with
	}
	path := request.Path
	rec.Path = path
	h.record(rec)
	if refused.status == http.StatusBadRequest {
		h.badRequests.Add(1)
	}
	to := h.endpoint()
	refused.writeFor(w, r.Method+" "+to.hostPort()+path, h.absolute, h.p.nextSteps(to, refused, r.Method, path))
}
