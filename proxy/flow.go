// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/decision"
)

// tcpFlow is one connection of the workload to one endpoint, from accept to close, or one request in absolute
// form to the explicit proxy. The first four fields never change; the others synchronise themselves.
type tcpFlow struct {
	p      *Proxy
	began  time.Time
	ctx    context.Context
	cancel context.CancelFunc

	to    atomic.Pointer[endpoint]
	conns connections
	http  atomic.Pointer[httpFlow] // nil while no HTTP is passed on
	tls   atomic.Value             // how TLS is handled, as Record.TLS; nothing while that is not known

	decided             atomic.Pointer[decision.Connection] // by the latest snapshot
	admitted            atomic.Bool                         // it got past the layers that permissive mode relaxes
	passthrough         atomic.Bool                         // what it carries is not looked into
	allowedByPermissive atomic.Bool                         // permissive mode let the connection through
	evidenceRecorded    atomic.Bool                         // evidence of what it carries is recorded
	pendingRefusal      atomic.Pointer[refusal]             // neither told nor recorded yet

	end sync.Once
}

func (p *Proxy) newFlow(ctx context.Context, client *net.TCPConn, to *endpoint) *tcpFlow {
	f := &tcpFlow{p: p, began: time.Now()}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.to.Store(to)
	f.conns.client = client
	return f
}

func (f *tcpFlow) endpoint() *endpoint { return f.to.Load() }

// decide returns what a snapshot makes of the flow's connection.
func (f *tcpFlow) decide(s decision.Snapshot) *decision.Connection {
	if c := f.decided.Load(); c != nil && c.Under(s) {
		return c
	}
	c := s.Connect(f.endpoint().connection())
	f.decided.Store(c)
	return c
}

// decideNow is decide for this moment.
func (f *tcpFlow) decideNow() *decision.Connection { return f.decide(f.p.Snapshot()) }

// stillAllowed reports whether a snapshot allows an admitted flow, the addresses that its host had, and what
// goes on in it. What was not looked into cannot stay where requests or messages have to be decided.
func (f *tcpFlow) stillAllowed(s decision.Snapshot) bool {
	c := f.decide(s)
	outcome := c.Decision().Outcome
	switch {
	case outcome == decision.Denied,
		f.passthrough.Load() && c.InspectionRequired(),
		// Later connections to the origin go to the same ones.
		f.endpoint().decideAddresses(c).Outcome == decision.Denied:
		return false
	case outcome == decision.Logged:
		f.allowedByPermissive.Store(true)
	}
	h := f.http.Load()
	return h == nil || h.exchanges.stillAllowed(c)
}

// goPassthrough notes that nobody looks into the flow from here on. Where the policy has changed so that
// somebody must, it ends the flow and returns false.
func (f *tcpFlow) goPassthrough() bool {
	f.passthrough.Store(true)
	if f.stillAllowed(f.p.Snapshot()) {
		return true
	}
	f.abort()
	return false
}

// record fills in what every record of the flow says.
func (f *tcpFlow) record(r Record) {
	r = f.endpoint().complete(r)
	r.TLS, _ = f.tls.Load().(string)
	if r.Evidence {
		f.evidenceRecorded.Store(true)
	}
	if r.Kind == Connect && r.Outcome == decision.Logged {
		f.allowedByPermissive.Store(true)
	}
	f.p.Record(r)
}

// deny records that the flow is cut off for a reason that no policy changes, so that there is nothing to learn
// from it.
func (f *tcpFlow) deny(layer, reason string) {
	f.evidenceRecorded.Store(true)
	f.record(Record{Kind: Connect, Outcome: decision.Denied, Layer: layer, Reason: reason})
}

// deferRefusal notes a refusal that is recorded when it is told, or at the flow's end.
func (f *tcpFlow) deferRefusal(r *refusal) { f.pendingRefusal.Store(r) }

// recordPendingRefusal records a refusal that could not be told.
func (f *tcpFlow) recordPendingRefusal(kind Kind) {
	if r := f.pendingRefusal.Swap(nil); r != nil {
		f.record(Record{Kind: kind, Outcome: decision.Denied, Evidence: r.evidence, Layer: r.layer, Reason: r.reason})
	}
}

// recordCarried records, as evidence, that the flow carries something other than HTTP, or nothing, where the
// policy does not allow the connection. One that is cut off because it no longer does was allowed as long as
// it lasted.
func (f *tcpFlow) recordCarried(kind Kind, skip bool, fault string) {
	c := f.decideNow()
	if c.Ruled() || !f.allowedByPermissive.Load() || f.evidenceRecorded.Swap(true) {
		return
	}
	f.record(Record{Kind: kind, Outcome: decision.Logged, Evidence: true, Layer: LayerL4, Reason: c.UnruledReason(),
		TLSSkip: skip, TLSFault: fault})
}

// abort closes the flow at once, telling the workload so.
func (f *tcpFlow) abort() {
	f.conns.reset()
	f.finish()
}

// retire ends a flow that is no longer allowed. Only a WebSocket has words for that.
func (f *tcpFlow) retire() {
	var s *socket
	if h := f.http.Load(); h != nil {
		s = h.exchanges.decidedSocket()
	}
	if s == nil {
		f.abort()
		return
	}
	time.AfterFunc(2*closeWait, f.abort)
	go crash.Contain("a WebSocket", func() { s.close(statusServiceRestart, "the policy has changed") })
}

// finish ends the flow; it may be called any number of times.
func (f *tcpFlow) finish() {
	f.end.Do(func() {
		defer f.p.forget(f)
		defer f.close() // whatever becomes of the record
		f.recordPendingRefusal(Connect)
		if f.admitted.Load() {
			f.recordCarried(Connect, false, "")
		}
	})
}

// close closes everything that the flow has.
func (f *tcpFlow) close() {
	f.cancel()
	f.conns.close()
	if h := f.http.Load(); h != nil {
		h.close()
	}
}
