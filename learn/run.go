package learn

import (
	"time"

	"openshell.ai/openshell/audit"
	"openshell.ai/openshell/state"
)

// runVersion is the format of a run's record.
const runVersion = "openshell.ai/run/v1"

// runRecord is what is kept of a permissive run.
type runRecord struct {
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

	Denials    int `json:"denials"`
	Proposals  int `json:"proposals"`  // that the run has evidence for
	Unproposed int `json:"unproposed"` // denials that no rule can be made for
	Lost       int `json:"lost"`       // denials that there was no room for
}

func newRunRecord(run Run) runRecord {
	return runRecord{
		Version: runVersion, Run: run.ID, Sandbox: run.Sandbox, Container: run.Container,
		Image: audit.Escape(run.Image, maxShownName), Policy: run.Policy, Mode: run.Mode,
		TTL: run.TTL, BasePolicySHA256: run.BasePolicySHA256, Started: run.Started.UTC(),
	}
}

func (l *Learner) writeRecord(ended time.Time) error {
	l.mu.Lock()
	record := l.record
	l.mu.Unlock()
	record.Proposals = len(l.proposed)
	if !ended.IsZero() {
		ended = ended.UTC()
		record.Ended = &ended
	}
	return state.WriteJSON(l.store.RunPath(l.run.Policy, l.run.ID), record)
}
