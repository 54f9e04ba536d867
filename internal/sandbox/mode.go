// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"sync"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
)

// moment is a point in time by two clocks: the wall's, which is set now and
// then and goes on while the machine sleeps, and one that only ever goes
// forward.
type moment struct {
	wall    time.Time
	elapsed time.Duration // since some point in the past
}

// clock tells the time, and wakes up after some.
type clock struct {
	now   func() moment
	after func(time.Duration) <-chan time.Time
}

func systemClock() clock {
	start := time.Now()
	return clock{after: time.After, now: func() moment {
		now := time.Now() // has both (package time, "Monotonic Clocks")
		return moment{now.Round(0), now.Sub(start)}
	}}
}

// mode is whether a sandbox is permissive, and until when. The time is over when
// either clock says so: setting the clock back does not prolong it, and neither
// does a machine that sleeps.
type mode struct {
	clock    clock
	mu       sync.Mutex
	on       bool
	ends     moment
	onExpiry string
}

func (m *mode) begin(r Request) {
	if r.Permissive {
		now := m.clock.now()
		m.on, m.ends, m.onExpiry = true, moment{now.wall.Add(r.TTL), now.elapsed + r.TTL}, r.OnExpiry
	}
}

// permissive is false from the first moment after the time, whether or not
// anybody has noticed.
func (m *mode) permissive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on && m.left() > 0
}

// left is how much of the time is left; m.mu must be held.
func (m *mode) left() time.Duration {
	now := m.clock.now()
	return min(m.ends.wall.Sub(now.wall), m.ends.elapsed-now.elapsed)
}

func (m *mode) name() string {
	if m.permissive() {
		return confine.ModePermissive
	}
	return confine.ModeEnforcing
}

// end makes the mode enforcing for good. It reports whether it was not before.
func (m *mode) end() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.on
	m.on = false
	return was
}

const (
	// clockCheck is how long a clock that is set forward goes unnoticed by what
	// does not look at it itself: connections that are open.
	clockCheck = 15 * time.Second
	// remindEvery is how often a permissive sandbox says so in its log.
	remindEvery = 10 * time.Minute
)

// startTimer ends permissive mode in time, and keeps reminding of it meanwhile.
// The time may be over already: then too there is an end to be made.
func (s *Sandbox) startTimer() {
	if s.request.Permissive {
		s.wg.Go(s.awaitExpiry)
	}
}

func (s *Sandbox) awaitExpiry() {
	reminded := s.mode.clock.now().elapsed
	for {
		s.mode.mu.Lock()
		left := s.mode.left()
		s.mode.mu.Unlock()
		if left <= 0 {
			s.expire()
			return
		}
		now := s.mode.clock.now().elapsed
		if now-reminded >= remindEvery {
			reminded = now
			s.recordPermissive(left)
		}
		select {
		case <-s.mode.clock.after(min(left, clockCheck)):
		case <-s.ctx.Done():
			return
		}
	}
}

// expire ends permissive mode. The network enforces from this moment, whatever
// else fails.
func (s *Sandbox) expire() {
	if !s.begin() {
		return
	}
	defer s.wg.Done()
	if !s.mode.end() {
		return
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "EXPIRED", Severity: audit.SeverityMedium,
		Message: fmt.Sprintf("permissive mode is over after %s; on expiry: %s", s.request.TTL, s.mode.onExpiry)})
	s.tighten()
	if err := s.updateInfo(func() { s.info.Mode = confine.ModeEnforcing }); err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	if s.mode.onExpiry == annotations.OnExpiryStop {
		s.stopWorkload()
	}
}

// tighten makes what was set up for permissive mode enforcing, by the rules that
// are in force. Where that fails, later execs are refused rather than left
// unconfined.
func (s *Sandbox) tighten() {
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := s.applyRules(); err != nil {
		s.recordError("the confinement of later execs was not tightened, so that they are refused", err)
		s.refuseExecs()
	}
}
