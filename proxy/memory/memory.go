// SPDX-License-Identifier: Apache-2.0

// Package memory owns how much memory a process may use for its sandboxes: it
// sets the limit that the garbage collector works towards, tells when the heap
// comes near it, and gives back what is no longer used. What to refuse or close
// then is its callers' decision.
package memory

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// Of the limit, in percent: what is alive above the first leaves no room for
// more, what is above the second has to be given up.
const (
	tightAt   = 75
	exceedsAt = 90
)

// Claim is one sandbox's part of the process's memory.
type Claim struct {
	bytes  int64
	shed   func()
	busy   atomic.Bool
	closed bool
}

// claims are all of the process, of which the limit is the sum. One process has
// one heap: what one sandbox does not use is there for the others.
var claims struct {
	sync.Mutex
	open    map[*Claim]struct{}
	limit   int64
	watched bool
}

// tight is true as long as there is no room.
var tight atomic.Bool

// New adds to the memory that the process may use. shed is called, after a
// collection and not at the same time twice, where what is alive exceeds that,
// so that something is given up.
func New(bytes int64, shed func()) *Claim {
	c := &Claim{bytes: bytes, shed: shed}
	claims.Lock()
	defer claims.Unlock()
	if claims.open == nil {
		claims.open = map[*Claim]struct{}{}
	}
	claims.open[c] = struct{}{}
	claims.limit += bytes
	debug.SetMemoryLimit(claims.limit)
	if !claims.watched {
		claims.watched = true
		watch(new(sentinel))
	}
	return c
}

// Close takes the claim back.
func (c *Claim) Close() {
	claims.Lock()
	defer claims.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	delete(claims.open, c)
	claims.limit -= c.bytes
	limit := claims.limit
	if len(claims.open) == 0 {
		limit = math.MaxInt64
		tight.Store(false)
	}
	debug.SetMemoryLimit(limit)
}

// Tight reports whether there is no room for more. It costs next to nothing.
func Tight() bool { return tight.Load() }

// sentinel is collected by each collection.
type sentinel struct{ _ [64]byte }

// watch looks at the heap after each collection: only that tells what is alive,
// and the nearer the heap is to its limit, the more often it comes.
func watch(s *sentinel) {
	runtime.SetFinalizer(s, func(s *sentinel) {
		claims.Lock()
		defer claims.Unlock()
		if claims.watched = len(claims.open) > 0; !claims.watched {
			return
		}
		look(alive(), claims.limit)
		watch(s)
	})
}

// look draws the consequences of what is alive.
func look(alive, limit int64) {
	tight.Store(alive > limit/100*tightAt)
	if alive <= limit/100*exceedsAt {
		return
	}
	for c := range claims.open {
		if c.busy.Swap(true) {
			continue
		}
		go func() {
			defer c.busy.Store(false)
			c.shed()
		}()
	}
}

// alive returns what the last collection found to be in use, and stacks.
func alive() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	return sum(samples)
}

func sum(samples []metrics.Sample) (n int64) {
	metrics.Read(samples)
	for _, s := range samples {
		n += int64(s.Value.Uint64())
	}
	return n
}

const (
	// worthwhile is how much the heap has to be for a collection of its own.
	worthwhile = 32 << 20
	// settle is how long a load is given to be over.
	settle = time.Second
)

var returning atomic.Bool

// GiveBack returns unused memory to the system, a moment later and away from
// the caller, if it is worth it. Without it an idle process would keep for
// minutes what it needed at its busiest.
func GiveBack() {
	if returning.Swap(true) {
		return
	}
	time.AfterFunc(settle, func() {
		returning.Store(false)
		if held() > worthwhile || Tight() {
			runtime.GC() // what has finalizers, or is pooled, goes only the second time
			debug.FreeOSMemory()
		}
	})
}

// held is what the process has from the system for its heap. How much of that is
// garbage only a collection tells.
func held() int64 {
	return sum([]metrics.Sample{
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	})
}
