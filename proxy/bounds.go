// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

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

// room tells why there is none for a connection more, or "".
func (p *Proxy) room() string {
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
		*flow
		requests int
	}
	var all []load
	for _, f := range p.flowsNow() {
		f.mu.Lock()
		all = append(all, load{f, len(f.exchanges)})
		f.mu.Unlock()
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b load) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), b.began.Compare(a.began))
	})
	all = all[:(len(all)+shedPart-1)/shedPart]
	p.Record(Record{Time: time.Now(), Outcome: Denied, Layer: LayerLimit,
		Reason: fmt.Sprintf("%d connections are closed: the supervisor has no memory left (supervisor.memory)", len(all))})
	for _, f := range all {
		f.abort()
	}
	memory.GiveBack()
}

// ebb is told, with p.mu held, that a flow has ended. Where many have, what they
// used goes back.
func (p *Proxy) ebb() {
	if p.most >= manyFlows && len(p.flows) <= p.most/4 || memory.Tight() {
		p.most = len(p.flows)
		memory.GiveBack()
	}
}

// watchIdle ends an admitted flow that carries nothing for too long, however it
// is carried. Nothing is done for that where bytes pass.
func (f *flow) watchIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.idle = time.AfterFunc(f.p.IdleTimeout+f.p.idleGrace(), f.checkIdle)
	}
}

func (f *flow) checkIdle() {
	f.mu.Lock()
	var conns []*net.TCPConn
	if f.client != nil {
		conns = append(conns, f.client)
	}
	for c := range f.origins {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	idle, ok := netns.Idle(conns...)
	if ok && idle >= f.p.IdleTimeout {
		f.record(Record{Kind: Connect, Outcome: Denied, Layer: LayerLimit,
			Reason: fmt.Sprintf("the connection has carried nothing for %s (limits.idle_timeout)", f.p.IdleTimeout)})
		f.abort()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.idle.Reset(f.p.IdleTimeout - idle + f.p.idleGrace())
	}
}

// Read implements net.Conn. It takes memory for the header that it reads, which
// no handler knows of yet.
func (c *serverConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n == 0 || !c.between.Load() {
		return n, err
	}
	size := int64(2*n + headerLine*bytes.Count(b[:n], []byte{'\n'}))
	if !c.flow.p.headers.TryAcquire(size) {
		c.flow.record(Record{Kind: Connect, Outcome: Denied, Layer: LayerLimit, Reason: "too many headers are being read"})
		c.flow.abort()
		return 0, io.EOF
	}
	c.header.Add(size)
	return n, err
}

// releaseHeader gives back what Read took.
func (c *serverConn) releaseHeader() { c.flow.p.headers.Release(c.header.Swap(0)) }
