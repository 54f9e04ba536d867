// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"net"
	"sync"

	"openshell.ai/openshell/internal/crash"
)

// relay carries an admitted connection.
func (f *flow) relay(up *net.TCPConn, p plan) {
	if !p.inspect {
		if f.goUnseen() {
			f.splice(up, f.prefix)
		} else {
			up.Close()
		}
		return
	}
	if len(f.prefix) == 0 && !firstSpeaker(f.ctx, f.client, up) {
		f.opaque(up, nil, p)
		return
	}
	s, prefix := listen(f.client, f.prefix, helloWait)
	switch {
	// Asked only now: a client retries at once, and its first try has to be over.
	case s == speaksTLS && f.mayGoUnseen() && f.p.pinned.has(f.pin()):
		f.passUnseen(up, prefix, p)
	case s == speaksTLS:
		f.terminate(up, prefix, p)
	case s == speaksHTTP:
		f.setTLS(TLSNone)
		f.scheme, f.http2 = "http", speaksHTTP2(prefix)
		f.offer(up)
		f.serveHTTP(&flowConn{Conn: f.client, flow: f, prefix: prefix}, f.http2)
	case s == silent:
		up.Close()
		f.finish()
	default:
		f.opaque(up, prefix, p)
	}
}

// opaque carries a connection that was to be inspected and is not HTTP.
func (f *flow) opaque(up *net.TCPConn, prefix []byte, p plan) {
	f.setTLS(TLSNone)
	if !f.admitOpaque(p) {
		up.Close()
		return
	}
	f.splice(up, prefix)
}

// admitOpaque decides on a connection that is not HTTP, and ends it where the
// answer is no. An endpoint that declares HTTP allows nothing else.
func (f *flow) admitOpaque(p plan) bool {
	if !p.declared {
		f.recordCarried(Raw, false)
		return f.goUnseen()
	}
	r := Record{Kind: Raw, Outcome: Logged, Layer: LayerL7, Policy: p.policy,
		Reason: "the endpoint's protocol is HTTP, and this is not HTTP"}
	switch g := f.grant(f.p.View()); {
	case g.match.Inspect && !g.permissive:
		r.Outcome = Denied
	case g.mustSee():
		r.Outcome, r.Reason = Denied, exceedsMaximum+r.Reason
	}
	if r.Outcome == Denied {
		f.record(r)
		f.abort()
		return false
	}
	f.record(r)
	return f.goUnseen()
}

// passUnseen splices TLS whose client turned the sandbox's CA down before.
func (f *flow) passUnseen(up *net.TCPConn, prefix []byte, p plan) {
	prefix, err := f.checkHello(f.client, prefix)
	if err != nil {
		up.Close()
		f.deny(LayerTLS, err.Error())
		f.abort()
		return
	}
	f.recordPinned(p)
	if f.goUnseen() {
		f.splice(up, prefix)
	} else {
		up.Close()
	}
}

// mayGoUnseen tells whether TLS that was to be terminated may be spliced.
func (f *flow) mayGoUnseen() bool {
	g := f.grant(f.p.View())
	return g.permissive && !g.mustSee()
}

// recordPinned records that the client's TLS can only be passed on unseen. An
// endpoint that declares a protocol rules that out whatever else is approved,
// so that there is nothing to learn.
func (f *flow) recordPinned(p plan) {
	if p.declared {
		f.record(Record{Kind: Raw, Outcome: Logged, Layer: LayerL7, Policy: p.policy, TLSSkip: true,
			Reason: "the endpoint's requests cannot be seen: the client does not accept the sandbox's CA"})
		return
	}
	f.recordCarried(Raw, true)
}

// splice passes bytes both ways untouched, in the kernel where it can, until
// both sides have ended. A TLS client that asks for another server than the
// one the connection is for is cut off.
func (f *flow) splice(up *net.TCPConn, prefix []byte) {
	defer f.finish()
	defer up.Close()
	defer context.AfterFunc(f.ctx, func() { up.Close() })()

	var wg sync.WaitGroup
	wg.Go(func() {
		if !crash.Contain("what an origin sends", func() { pass(f.client, up) }) {
			f.abort()
		}
	})
	prefix, err := f.checkHello(f.client, prefix)
	if err != nil {
		f.deny(LayerTLS, err.Error())
		f.abort()
	} else {
		_, _ = up.Write(prefix) // Where it fails, the copy does too.
		pass(up, f.client)
	}
	wg.Wait()
}

// pass copies one direction to its end and passes the end on. A failure of
// either side ends both directions: what was lost cannot be made up for.
func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}
