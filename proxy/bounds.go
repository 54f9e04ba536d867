// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/memory"
)

const (
	// maxHeaders is about how many bytes of HTTP/1 headers one sandbox's proxy
	// holds at a time, as they are in memory.
	maxHeaders = 64 << 20
	// headerLine is what a line of a header takes besides its text.
	headerLine = 100

	// These bound what one connection of HTTP/2 makes the proxy hold. A frame is
	// given its memory when its header has come.
	maxStreams    = 100
	maxFrame      = 16 << 10
	maxUnread     = 256 << 10 // of a client's bodies
	maxUnreadBack = 16 << 20  // of an origin's

	// shedPart is the part of the connections that is closed at a time where there
	// is no memory left.
	shedPart = 8
	// manyFlows is from how many on it matters that most have ended.
	manyFlows = 64
)

// idleGrace lets HTTP, which knows when a request has ended, be first.
func (p *Proxy) idleGrace() time.Duration { return min(5*time.Second, p.IdleTimeout/4) }

// http2Limits are a server's.
func http2Limits() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame,
		MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnread,
	}
}

// full returns why there is no room for one more connection, or "".
func (p *Proxy) full() string {
	switch {
	case p.open.Load() >= int64(p.MaxConnections):
		return fmt.Sprintf("the sandbox has %d connections open (limits.connections)", p.MaxConnections)
	case memory.Tight():
		memory.GiveBack() // of what is closed already, perhaps
		return "the supervisor has no memory left (supervisor.memory)"
	}
	return ""
}

// shed closes a part of the connections: those with the most requests under way,
// and of them those that came last.
func (p *Proxy) shed() {
	type load struct {
		*tcpFlow
		requests int
	}
	var all []load
	for _, f := range p.flowsNow() {
		requests := 0
		if h := f.http.Load(); h != nil {
			requests = h.exchanges.len()
		}
		all = append(all, load{f, requests})
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b load) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), b.began.Compare(a.began))
	})
	all = all[:(len(all)+shedPart-1)/shedPart]
	p.Record(Record{Time: time.Now(), Outcome: decision.Denied, Layer: LayerLimit,
		Reason: fmt.Sprintf("%d connections are closed: the supervisor has no memory left (supervisor.memory)", len(all))})
	for _, f := range all {
		f.abort()
	}
	memory.GiveBack()
}

// giveBack is told, with p.mu held, that a flow has ended. Where many have, what they used goes back.
func (p *Proxy) giveBack() {
	if p.peak >= manyFlows && len(p.flows) <= p.peak/4 || memory.Tight() {
		p.peak = len(p.flows)
		memory.GiveBack()
	}
}

// watchIdle ends an admitted flow that carries nothing for too long, however it is carried. Nothing is done
// for that where bytes pass.
func (f *tcpFlow) watchIdle() { f.conns.watch(f.p.IdleTimeout+f.p.idleGrace(), f.checkIdle) }

func (f *tcpFlow) checkIdle() {
	idle, ok := netns.Idle(f.conns.all()...)
	if ok && idle >= f.p.IdleTimeout {
		f.record(Record{Kind: Connect, Outcome: decision.Denied, Layer: LayerLimit,
			Reason: fmt.Sprintf("the connection has carried nothing for %s (limits.idle_timeout)", f.p.IdleTimeout)})
		f.abort()
		return
	}
	f.conns.watch(f.p.IdleTimeout-idle+f.p.idleGrace(), f.checkIdle)
}

// Read implements net.Conn. It takes memory for the header that it reads, which
// no handler knows of yet.
func (c *serverConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	answering := !c.between.Load()
	// The server reads one byte while a request is answered whose body it has, to learn that its client left.
	if errors.Is(err, io.EOF) && len(b) == 1 && (answering || c.halfClose.hasHeader()) {
		err = c.halfClose.await(c.flow, c.flow.leaveOrigins)
	}
	if answering || n == 0 {
		return n, err
	}
	c.head = append(c.head, b[:n]...)
	size := int64(3*n + headerLine*bytes.Count(b[:n], []byte{'\n'}))
	if !c.flow.p.headers.TryAcquire(size) {
		c.flow.record(Record{Kind: Connect, Outcome: decision.Denied, Layer: LayerLimit,
			Reason: "too many headers are being read"})
		c.flow.abort()
		return 0, io.EOF
	}
	c.header.Add(size)
	return n, err
}

// releaseHeader gives back what Read took.
func (c *serverConn) releaseHeader() { c.flow.p.headers.Release(c.header.Swap(0)) }
