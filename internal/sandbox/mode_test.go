// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
)

// handClock is a clock that stands still until it is set.
type handClock struct {
	mu     sync.Mutex
	moment moment
	waits  []handWait
}

type handWait struct {
	until time.Duration
	c     chan time.Time
}

func newHandClock() *handClock {
	return &handClock{moment: moment{wall: time.Date(2026, 8, 1, 10, 0, 0, 0, time.UTC), elapsed: time.Hour}}
}

func (h *handClock) clock() clock {
	return clock{
		now: func() moment {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.moment
		},
		after: func(d time.Duration) <-chan time.Time {
			h.mu.Lock()
			defer h.mu.Unlock()
			w := handWait{h.moment.elapsed + d, make(chan time.Time, 1)}
			h.waits = append(h.waits, w)
			return w.c
		},
	}
}

// pass lets time go by, as both clocks see it.
func (h *handClock) pass(elapsed, wall time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moment.elapsed += elapsed
	h.moment.wall = h.moment.wall.Add(wall)
	var left []handWait
	for _, w := range h.waits {
		if w.until <= h.moment.elapsed {
			w.c <- h.moment.wall
		} else {
			left = append(left, w)
		}
	}
	h.waits = left
}

// startAt is start by a clock that the test moves.
func startAt(t *testing.T, h *handClock, c *config.Config, r Request) *Sandbox {
	t.Helper()
	s, err := startBy(h.clock(), c, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func (h *handClock) waiting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waits) > 0
}

func TestPermissiveTimeByBothClocks(t *testing.T) {
	const ttl = time.Hour
	for name, tt := range map[string]struct {
		elapsed, wall time.Duration
		over          bool
	}{
		"nothing":                   {0, 0, false},
		"just before":               {ttl - 1, ttl - 1, false},
		"the end":                   {ttl, ttl, true},
		"clock set back, before":    {ttl - 1, -24 * time.Hour, false},
		"clock set back, after":     {ttl, -24 * time.Hour, true},
		"clock set forward":         {time.Second, 2 * ttl, true},
		"clock set a little later":  {time.Second, ttl / 2, false},
		"the machine slept":         {time.Minute, 8 * time.Hour, true},
		"clock set back and passed": {2 * ttl, 0, true},
	} {
		hand := newHandClock()
		m := mode{clock: hand.clock()}
		m.begin(Request{Permissive: true, TTL: ttl})
		if !m.permissive() {
			t.Fatal("it does not begin permissive")
		}
		hand.pass(tt.elapsed, tt.wall)
		if m.permissive() == tt.over {
			t.Errorf("%s: permissive %t", name, !tt.over)
		}
		hand.pass(0, -48*time.Hour)
		m.end()
		if m.permissive() {
			t.Errorf("%s: permissive after its end", name)
		}
	}
}

// A clock that is set forward ends the mode for the next decision, and for what
// is open and for later execs soon after.
func TestClockSetForwardEndsPermissiveMode(t *testing.T) {
	c := newNode(t)
	hand := newHandClock()
	s := startAt(t, hand, c, permissive(t.TempDir(), "c1", time.Hour, annotations.OnExpiryEnforce))
	eventually(t, "the timer waits", hand.waiting)
	hand.pass(0, 2*time.Hour)
	if s.snapshot().Permissive {
		t.Error("the next decision is still permissive")
	}
	hand.pass(clockCheck, clockCheck)
	eventually(t, "execs are confined", func() bool { return confinementMode(t, s) == confine.ModeEnforcing })
	eventually(t, "sandbox.json says so", func() bool {
		info, err := Find(c.RunDir, "c1")
		return err == nil && info.Mode == confine.ModeEnforcing
	})
}

func TestPermissiveSandboxReminds(t *testing.T) {
	c := newNode(t)
	hand := newHandClock()
	s := startAt(t, hand, c, permissive(t.TempDir(), "c1", time.Hour, annotations.OnExpiryEnforce))
	for range 50 {
		eventually(t, "the timer waits", hand.waiting)
		hand.pass(clockCheck, clockCheck)
	}
	var reminders []string
	eventually(t, "a reminder is written", func() bool {
		reminders = nil
		for line := range strings.Lines(logOf(t, s)) {
			if strings.Contains(line, "LIFECYCLE:PERMISSIVE") {
				reminders = append(reminders, line)
			}
		}
		return len(reminders) > 0
	})
	if len(reminders) != 1 || !strings.Contains(reminders[0], "PERMISSIVE for another 50m0s") {
		t.Errorf("after 12.5 minutes: %q", reminders)
	}
}
