// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync"

// pin is a client that does not trust the sandbox's CA, and the service it
// did not trust it for.
type pin struct {
	host   string
	port   uint16
	binary string
}

func (e *endpoint) pin() pin { return pin{e.host, e.port, e.process.Path} }

// pinned remembers pins for the sandbox's life.
type pinned struct {
	mu   sync.Mutex
	seen map[pin]bool
}

// maxPinned bounds what is remembered.
const maxPinned = 4096

func (p *pinned) add(c pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = make(map[pin]bool)
	}
	if len(p.seen) < maxPinned {
		p.seen[c] = true
	}
}

func (p *pinned) has(c pin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[c]
}
