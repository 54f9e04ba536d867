// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"openshell.ai/openshell/internal/state"
)

// Bounds of a policy's proposals on disk, of all runs together: every command reads all of them.
const (
	maxProposals     = 4096
	maxProposalBytes = 128 << 20
)

// quota is what is left for a policy's proposals, while its lock is held.
type quota struct {
	proposals int
	bytes     int64
	sizes     map[string]int64 // of the files that there are, by their ids
}

func quotaOf(store *state.Store, policyName string) (*quota, error) {
	sizes, err := store.ProposalSizes(policyName)
	if err != nil {
		return nil, err
	}
	q := &quota{proposals: maxProposals - len(sizes), bytes: maxProposalBytes, sizes: sizes}
	for _, size := range sizes {
		q.bytes -= size
	}
	return q, nil
}

// exhausted reports whether nothing is left for another proposal.
func (q *quota) exhausted() bool { return q.proposals <= 0 || q.bytes <= 0 }

// take counts a proposal that is written.
func (q *quota) take(id string, size int64) {
	old, known := q.sizes[id]
	if !known {
		q.proposals--
	}
	q.bytes -= size - old
	q.sizes[id] = size
}
