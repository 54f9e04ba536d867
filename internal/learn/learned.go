// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// LearnedPolicy reads the approved rules of a policy. Without any it is an empty policy, not nil.
func LearnedPolicy(store *state.Store, policyName string) (*policy.Policy, error) {
	if err := state.CheckName(policyName); err != nil {
		return nil, fmt.Errorf("learned policy: %w", err)
	}
	empty := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
	if err := safefile.CheckDir(store.PolicyDir(policyName)); err != nil {
		return nil, fmt.Errorf("learned policy %s: %w", policyName, err)
	}
	if err := store.Recover(policyName); err != nil {
		return nil, err
	}
	path := store.LearnedPath(policyName)
	data, err := state.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, fmt.Errorf("learned policy %s: %w", policyName, err)
	}
	p, err := ParseLearned(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ParseLearned reads the text of a learned policy.
func ParseLearned(data []byte) (*policy.Policy, error) {
	p, _, err := policy.Parse(data)
	if err != nil {
		return nil, err
	}
	if p.Network == nil {
		p.Network = map[string]*policy.Rule{}
	}
	markLearned(p)
	return p, nil
}

// markLearned says of all rules where they come from. They need not agree on how a host is treated, which
// is another one for each program.
func markLearned(p *policy.Policy) {
	for _, r := range p.Network {
		r.Learned = true
	}
}

// stageLearned puts the approved rules into a batch, and as comments, which OpenShell accepts too, where they
// come from. Of the proposals in fresh the decision is not on disk yet. The caller
// holds the policy's lock.
func stageLearned(b *state.Batch, store *state.Store, policyName string, p *policy.Policy, fresh []Proposal) error {
	p = p.Clone()
	markLearned(p)
	body, err := policy.Marshal(p)
	if err != nil {
		return fmt.Errorf("learned policy %s: %w", policyName, err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# What was approved for the policy %q. To change it use openshell approve, reject and undo.\n",
		policyName)
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		if origin := originOf(store, policyName, key, fresh); origin != "" {
			fmt.Fprintf(&text, "# %s: %s\n", key, origin)
		}
	}
	for _, origin := range fileOrigins(store, policyName, fresh) {
		fmt.Fprintf(&text, "# filesystem_policy: %s\n", origin)
	}
	text.Write(body)
	if _, _, err := policy.Parse([]byte(text.String())); err != nil {
		return fmt.Errorf("learned policy %s: would not be readable: %w", policyName, err)
	}
	return b.Put(store.LearnedPath(policyName), []byte(text.String()))
}

// originOf says which proposal a rule comes from, or nothing where it comes from none.
func originOf(store *state.Store, policyName, key string, fresh []Proposal) string {
	i := slices.IndexFunc(fresh, func(p Proposal) bool { return p.RuleName == key })
	var p Proposal
	if i >= 0 {
		p = fresh[i]
	} else {
		var err error
		if p, err = loadProposal(store, policyName, idOfRule(key)); err != nil || p.RuleName != key {
			return ""
		}
	}
	return p.Origin()
}

// fileOrigins says which proposals learned paths come from, and which paths.
func fileOrigins(store *state.Store, policyName string, fresh []Proposal) []string {
	all, err := List(store, policyName)
	if err != nil {
		return nil // they are comments only
	}
	var origins []string
	for _, p := range all {
		if i := slices.IndexFunc(fresh, func(f Proposal) bool { return f.ID == p.ID }); i >= 0 {
			p = fresh[i]
		}
		if p.InForce != nil {
			n := len(p.InForce.ReadOnly) + len(p.InForce.ReadWrite)
			origins = append(origins, fmt.Sprintf("%d paths in %s: %s", n, audit.Escape(p.Evidence.Tree, maxShownPath),
				p.Origin()))
		}
	}
	slices.Sort(origins)
	return origins
}

// Origin says in one line where the proposal's rule comes from and who approved
// it, for the comments beside the rule.
func (p Proposal) Origin() string {
	origin := fmt.Sprintf("proposal %s, learned in %s mode", p.ID, p.Provenance.Mode)
	if !p.learned() {
		origin = fmt.Sprintf("proposal %s, asked for by the workload", p.ID)
	}
	if p.Tightened != nil {
		origin += ", tightened"
	}
	if p.Status == StatusApproved && p.DecidedAt != nil {
		origin += fmt.Sprintf(", approved %s by %s", p.DecidedAt.UTC().Format(time.RFC3339), cmp.Or(p.DecidedBy, "unknown"))
	}
	return origin
}
