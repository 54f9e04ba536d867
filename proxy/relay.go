// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"net"
	"sync"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/decision"
)

// relay carries an admitted connection.
func (f *tcpFlow) relay(client clientConn, up *net.TCPConn, admitted *decision.Connection) {
	if !admitted.SeesRequests() {
		f.splicePassthrough(client, up)
		return
	}
	if len(client.said) == 0 && !firstSpeaker(f.ctx, client.TCPConn, up) {
		f.opaque(client, up, admitted)
		return
	}
	s, said := listen(client, client.said, helloWait)
	client.said = said
	switch {
	// Asked only now: a client retries at once, and its first try has to be over.
	case s == speaksTLS && f.decideNow().CanPassthrough() && f.p.pinned.has(f.endpoint().pin()):
		f.relayPinned(client, up, admitted)
	case s == speaksTLS:
		f.terminate(client, up, admitted)
	case s == speaksHTTP:
		f.tls.Store(TLSNone)
		h := &httpFlow{tcpFlow: f, scheme: "http", http2: speaksHTTP2(said)}
		h.offer(up)
		h.serveHTTP(newFlowConn(client, f), h.http2)
	case s == silent:
		f.awaitGreeting(client, up, admitted)
	default:
		f.opaque(client, up, admitted)
	}
}

// opaque carries a connection that was to be inspected and is not HTTP.
func (f *tcpFlow) opaque(client clientConn, up *net.TCPConn, admitted *decision.Connection) {
	f.tls.Store(TLSNone)
	if !f.admitOpaque(admitted) {
		up.Close()
		return
	}
	f.splice(client, up)
}

// admitOpaque decides on a connection that is not HTTP, and ends it where the answer is no. An endpoint that
// declares HTTP allows nothing else.
func (f *tcpFlow) admitOpaque(admitted *decision.Connection) bool {
	if !admitted.DecidesRequests() {
		f.recordCarried(Raw, false, "")
		return f.goPassthrough()
	}
	d := f.decideNow().Opaque()
	f.record(recordOf(Raw, d))
	if d.Outcome == decision.Denied {
		f.abort()
		return false
	}
	return f.goPassthrough()
}

// relayPinned splices TLS whose client turned the sandbox's CA down before.
func (f *tcpFlow) relayPinned(client clientConn, up *net.TCPConn, admitted *decision.Connection) {
	said, err := f.checkHello(client, client.said)
	if err != nil {
		up.Close()
		f.deny(LayerTLS, err.Error())
		f.abort()
		return
	}
	client.said = said
	f.recordPinned(admitted)
	f.splicePassthrough(client, up)
}

// recordPinned records that the client's TLS can only be passed on unseen. An endpoint that declares a protocol
// rules that out whatever else is approved, so that there is nothing to learn.
func (f *tcpFlow) recordPinned(admitted *decision.Connection) {
	if admitted.DecidesRequests() {
		f.record(Record{Kind: Raw, Outcome: decision.Logged, Layer: LayerL7, Policy: admitted.Policy(), TLSSkip: true,
			Reason: "the endpoint's requests cannot be seen: the client does not accept the sandbox's CA"})
		return
	}
	f.recordCarried(Raw, true, "")
}

// relayUnterminated passes TLS on whose origin the proxy cannot speak to as the client may. client.said is the
// whole ClientHello: nobody has answered it yet.
func (f *tcpFlow) relayUnterminated(client clientConn, fault error) {
	up, err := f.dial(f.ctx)
	if err != nil {
		f.deny(LayerUpstream, err.Error())
		f.abort()
		return
	}
	f.conns.own(up)
	f.tls.Store(TLSSpliced)
	f.recordCarried(Raw, true, fault.Error())
	f.splicePassthrough(client, up)
}

// splicePassthrough is splice for what nobody has to look into, if that still holds.
func (f *tcpFlow) splicePassthrough(client clientConn, up *net.TCPConn) {
	if !f.goPassthrough() {
		up.Close()
		return
	}
	f.splice(client, up)
}

// splice passes bytes both ways untouched, in the kernel where it can, until both sides have ended. A TLS
// client that asks for another server than the one the connection is for is cut off.
func (f *tcpFlow) splice(client clientConn, up *net.TCPConn) {
	defer f.finish()
	defer up.Close()
	defer context.AfterFunc(f.ctx, func() { up.Close() })()

	var wg sync.WaitGroup
	wg.Go(func() {
		if !crash.Contain("what an origin sends", func() { pass(client.TCPConn, up) }) {
			f.abort()
		}
	})
	said, err := f.checkHello(client, client.said)
	if err != nil {
		f.deny(LayerTLS, err.Error())
		f.abort()
	} else {
		_, _ = up.Write(said) // Where it fails, the copy does too.
		pass(up, client.TCPConn)
	}
	wg.Wait()
}

// pass copies one direction to its end and passes the end on. A failure of either side ends both directions:
// what was lost cannot be made up for.
func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}
