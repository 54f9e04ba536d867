// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"sync"

	"openshell.ai/openshell/internal/audit"
)

const (
	maxDenials    = 100
	maxDenialLine = 4096 // bytes
)

// denials are the last events that the policy denied, or would deny, as the log
// has them.
type denials struct {
	mu    sync.Mutex
	lines [maxDenials]string
	next  int // where the next one goes
	count int
}

// note keeps an event, if it is one.
func (d *denials) note(e audit.Event) {
	if e.Disposition != audit.DispositionBlocked && e.Disposition != audit.DispositionLogged {
		return
	}
	line := audit.Shorthand(e)
	line = line[:min(len(line), maxDenialLine)]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines[d.next] = line
	d.next = (d.next + 1) % maxDenials
	d.count = min(d.count+1, maxDenials)
}

// last returns at most n lines, the newest first.
func (d *denials) last(n int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := make([]string, min(n, d.count))
	for i := range lines {
		lines[i] = d.lines[(d.next-1-i+maxDenials)%maxDenials]
	}
	return lines
}
