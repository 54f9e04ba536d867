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

// room is what there is left for a policy's proposals, while its lock is held.
type room struct {
	proposals int
	bytes     int64
	sizes     map[string]int64 // of the files that there are, by their ids
}

func roomIn(store *state.Store, policyName string) (*room, error) {
	sizes, err := store.ProposalSizes(policyName)
	if err != nil {
		return nil, err
	}
	r := &room{proposals: maxProposals - len(sizes), bytes: maxProposalBytes, sizes: sizes}
	for _, size := range sizes {
		r.bytes -= size
	}
	return r, nil
}

// none reports whether there is none for another proposal.
func (r *room) none() bool { return r.proposals <= 0 || r.bytes <= 0 }

// take counts a proposal that is written.
func (r *room) take(id string, size int64) {
	old, known := r.sizes[id]
	if !known {
		r.proposals--
	}
	r.bytes -= size - old
	r.sizes[id] = size
}
