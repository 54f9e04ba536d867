// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// connections are what a flow has open. They end together, and what comes after that is closed at once.
type connections struct {
	mu      sync.Mutex   // guards what follows
	client  *net.TCPConn // nil while the workload's connection is another flow's
	origins map[*net.TCPConn]struct{}
	idle    *time.Timer
	ended   bool
}

// take gives the flow the workload's connection. It returns false where the flow has ended.
func (c *connections) take(client *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.client = client
	}
	return !c.ended
}

// own has a connection to the origin end with the flow. A transport keeps one of HTTP/2 that is in use when it
// closes the idle ones.
func (c *connections) own(origin *net.TCPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		origin.Close()
		return
	}
	maps.DeleteFunc(c.origins, func(c *net.TCPConn, _ struct{}) bool { return closed(c) })
	if c.origins == nil {
		c.origins = make(map[*net.TCPConn]struct{})
	}
	c.origins[origin] = struct{}{}
}

// closed reports whether this end of a connection is.
func closed(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// all returns those that are open.
func (c *connections) all() []*net.TCPConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Collect(maps.Keys(c.origins))
	if c.client != nil {
		all = append(all, c.client)
	}
	return all
}

// reset makes the workload see its connection refused, not ended, when it is closed.
func (c *connections) reset() {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client != nil {
		_ = client.SetLinger(0)
	}
}

// watch calls check once after a while, unless the flow ends before.
func (c *connections) watch(after time.Duration, check func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if c.idle != nil {
		c.idle.Reset(after)
		return
	}
	c.idle = time.AfterFunc(after, check)
}

// close closes all of them, for good.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.client != nil {
		c.client.Close()
	}
	for origin := range c.origins {
		origin.Close()
	}
}
