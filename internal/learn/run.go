// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/state"
)

// runVersion is the format of a run's record.
const runVersion = "openshell.ai/run/v1"

// maxRunRecords is how many runs of a policy stay on record, the newest.
const maxRunRecords = 1024

// RunRecord is what is kept of a permissive run.
type RunRecord struct {
	Version          string     `json:"version"`
	Run              string     `json:"run"`
	Sandbox          string     `json:"sandbox"`
	Container        string     `json:"container"`
	Image            string     `json:"image"`
	Policy           string     `json:"policy"`
	Mode             string     `json:"mode"`
	TTL              string     `json:"ttl"`
	BasePolicySHA256 string     `json:"base_policy_sha256"`
	Started          time.Time  `json:"started"`
	Ended            *time.Time `json:"ended,omitempty"` // absent: it goes on, or was killed

	Denials    int         `json:"denials"`
	Proposals  int         `json:"proposals"`  // that the run has evidence for
	Unproposed int         `json:"unproposed"` // denials that no rule can be made for
	Lost       int         `json:"lost"`       // denials that there was no room for
	Notes      []NoteCount `json:"notes,omitempty"`
}

func newRunRecord(run Run) RunRecord {
	return RunRecord{
		Version: runVersion, Run: run.ID, Sandbox: run.Sandbox, Container: run.Container,
		Image: audit.Escape(run.Image, maxShownName), Policy: run.Policy, Mode: run.Mode,
		TTL: run.TTL, BasePolicySHA256: run.BasePolicySHA256, Started: run.Started.UTC(),
	}
}

func (l *Learner) writeRecord(ended time.Time) error {
	l.mu.Lock()
	record := l.record
	record.Notes = l.notes.list()
	l.mu.Unlock()
	record.Proposals = len(l.proposed)
	if !ended.IsZero() {
		ended = ended.UTC()
		record.Ended = &ended
	}
	return state.WriteJSON(l.store.RunPath(l.run.Policy, l.run.ID), record)
}

// Runs returns the permissive runs of a policy that are on record, the oldest first.
func Runs(store *state.Store, policyName string) ([]RunRecord, error) {
	ids, err := store.Runs(policyName)
	if err != nil {
		return nil, err
	}
	runs := make([]RunRecord, 0, len(ids))
	for _, id := range ids {
		var r RunRecord
		err := state.ReadJSON(store.RunPath(policyName, id), &r)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("policy %s: run %s: %w", policyName, id, err)
		}
		if err := state.CheckVersion(r.Version, runVersion); err != nil {
			return nil, fmt.Errorf("policy %s: run %s: %w", policyName, id, err)
		}
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b RunRecord) int {
		return cmp.Or(a.Started.Compare(b.Started),
			cmp.Compare(a.Run, b.Run))
	})
	return runs, nil
}

// pruneRuns removes the records of the oldest runs. The caller holds the policy's lock.
func pruneRuns(store *state.Store, policyName string) error {
	ids, err := store.Runs(policyName)
	if err != nil || len(ids) <= maxRunRecords {
		return err
	}
	runs, err := Runs(store, policyName)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range runs[:max(len(runs)-maxRunRecords, 0)] {
		errs = append(errs, os.Remove(store.RunPath(policyName, r.Run)))
	}
	return errors.Join(errs...)
}

// SeenIn tells in how many runs the proposal was seen, and how many there were that could have seen
// it: those on record, until it was approved, and those that did see it. The first number is
// at most 128, which is how many runs a proposal remembers.
func (p *Proposal) SeenIn(runs []RunRecord) (seen, of int) {
	saw := map[string]bool{}
	for _, r := range p.Provenance.Runs {
		saw[r.Run] = true
	}
	of = len(saw)
	for i := range runs {
		late := p.Status == StatusApproved && p.DecidedAt != nil && runs[i].Started.After(*p.DecidedAt)
		if !saw[runs[i].Run] && !late {
			of++
		}
	}
	return len(saw), of
}
