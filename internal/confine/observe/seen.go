// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"path"
)

// generation is how many paths are remembered, at most twice.
const generation = 1 << 15

// seen remembers what was reported. Its memory is bounded: what has not come
// again for long is forgotten, and then reported once more.
type seen struct{ young, old map[string]Kind }

func newSeen() *seen { return &seen{young: map[string]Kind{}} }

// has reports whether all of the kinds are known for the path.
func (s *seen) has(path string, kinds Kind) bool {
	had, ok := s.young[path]
	if !ok {
		had = s.old[path]
	}
	return had|kinds == had
}

// add returns which of the kinds are new for the path.
func (s *seen) add(path string, kinds Kind) (fresh Kind) {
	had, young := s.young[path]
	if !young {
		had = s.old[path]
	}
	if young && had|kinds == had {
		return 0
	}
	if !young && len(s.young) >= generation {
		s.young, s.old = map[string]Kind{}, s.young
	}
	s.young[path] = had | kinds
	return kinds &^ had
}

// maxMade is how many paths made by the workload, and how many that it removed,
// are remembered.
const maxMade = 1 << 16

// made tells what the workload made from what was there before it, and will be
// there before its next run.
type made struct {
	paths   map[string]struct{} // made: the topmost only
	removed map[string]struct{} // were there before, and may be made again
	full    bool                // some were not remembered

	// What was removed is still said to be made for two turns, in which events
	// from before the removal are read.
	leaving, left []string
}

func newMade() made {
	return made{paths: map[string]struct{}{}, removed: map[string]struct{}{}}
}

func (m *made) add(p string) {
	if m.wasRemoved(p) {
		delete(m.removed, p)
		return
	}
	if m.existing(p) != p {
		return
	}
	if len(m.paths) >= maxMade {
		m.full = true
		return
	}
	m.paths[p] = struct{}{}
}

func (m *made) remove(p string) {
	if m.existing(p) != p {
		m.leaving = append(m.leaving, p)
	} else if len(m.removed) < maxMade {
		m.removed[p] = struct{}{}
	}
}

// turn ends a turn.
func (m *made) turn() {
	for _, p := range m.left {
		delete(m.paths, p)
	}
	m.leaving, m.left = m.left[:0], m.leaving
}

// wasRemoved reports whether the workload removed something that was there before.
func (m *made) wasRemoved(p string) bool {
	_, removed := m.removed[p]
	return removed
}

// existing returns the path, or the nearest directory above it, that is not the
// workload's own work.
func (m *made) existing(p string) string {
	if len(m.paths) == 0 {
		return p
	}
	existing := p
	for at := p; at != "/" && at != "."; at = path.Dir(at) {
		if _, own := m.paths[at]; own {
			existing = path.Dir(at)
		}
	}
	return existing
}
