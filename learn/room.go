package learn

import (
	"fmt"
	"os"

	"openshell.ai/openshell/state"
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

// take counts a proposal that was written.
func (r *room) take(store *state.Store, p *Proposal) error {
	info, err := os.Stat(store.ProposalPath(p.Policy, p.ID))
	if err != nil {
		return fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	old, known := r.sizes[p.ID]
	if !known {
		r.proposals--
	}
	r.bytes -= info.Size() - old
	r.sizes[p.ID] = info.Size()
	return nil
}
