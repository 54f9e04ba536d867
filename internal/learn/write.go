// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"errors"
	"io/fs"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/state"
)

// writing is the proposals that one turn of a learner's writes, while it holds the policy's lock. No target
// is in it twice.
type writing struct {
	store  *state.Store
	files  *state.Batch
	quota  *quota
	staged map[string]bool // ids of proposals that are in files
}

// update adds evidence to the proposal on disk, or makes one. Where there is no room for the evidence,
// the proposal has no more than a mark of it.
func (w *writing) update(e *Evidence) (Proposal, outcome, error) {
	p, what, err := w.add(e)
	if !errors.Is(err, fileio.ErrTooLarge) {
		return p, what, err
	}
	if what == created {
		return p, overQuota, nil
	}
	e.dropDetails()
	if p, what, err = w.add(e); errors.Is(err, fileio.ErrTooLarge) {
		err = &unusableError{err}
	}
	return p, what, err
}

func (w *writing) add(e *Evidence) (Proposal, outcome, error) {
	what := unchanged
	p, err := w.find(e)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fresh, ok := newProposal(e)
		if !ok {
			return p, notExpressible, nil
		}
		if w.quota.exhausted() {
			return p, overQuota, nil
		}
		p, what = fresh, created
	case err != nil:
		return p, unchanged, &unusableError{err}
	default:
		if w.quota.bytes <= 0 {
			e.dropDetails()
		}
		changed, err := p.grow(e)
		if err != nil {
			return p, unchanged, &unusableError{err}
		}
		if changed {
			what = grown
		}
	}
	size, err := stageProposal(w.files, w.store, &p)
	if err != nil {
		return p, what, err
	}
	w.quota.take(p.ID, size)
	w.staged[p.ID] = true
	return p, what, nil
}

// find reads the proposal that evidence belongs to. Where another target's proposal has
// the short id, the evidence gets the long one.
func (w *writing) find(e *Evidence) (Proposal, error) {
	e.id = shortID(e.policy, e.target)
	if !w.staged[e.id] {
		p, err := loadProposal(w.store, e.policy, e.id)
		if err != nil || p.target() == e.target {
			return p, err
		}
	}
	e.id = longID(e.policy, e.target)
	return loadProposal(w.store, e.policy, e.id)
}
