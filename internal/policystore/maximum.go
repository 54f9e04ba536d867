// SPDX-License-Identifier: Apache-2.0

package policystore

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/internal/usertext"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

// loadMaximum reads the node's maximum policy, if there is one. That its file is
// missing is an error: an administrator relies on it.
func (p *Policies) loadMaximum(c *config.Config) error {
	if c.MaximumPolicy == "" {
		return nil
	}
	maximum, _, err := readPolicy(c.MaximumPolicy)
	if err != nil {
		return fmt.Errorf("maximum_policy: %w", err)
	}
	if maximum == nil {
		return fmt.Errorf("maximum_policy: %s does not exist: write it, or leave maximum_policy out of the configuration",
			c.MaximumPolicy)
	}
	p.Maximum, p.MaximumFile = maximum, c.MaximumPolicy
	return nil
}

// CheckMaximum tells where the effective policy exceeds the node's maximum. The
// error names the rule, and how to take it back.
func (p *Policies) CheckMaximum() error {
	err := p.CheckWithin(p.Effective)
	if err == nil {
		return nil
	}
	if undo := p.exceedingApprovals(); len(undo) > 0 {
		return fmt.Errorf("%w: take back what was approved: openshell undo %s %s", err, p.Name, strings.Join(undo, " "))
	}
	if p.BaseFile == "" {
		return fmt.Errorf("%w: the policy is the built-in default: write a narrower %s.yaml", err, p.Name)
	}
	return fmt.Errorf("%w: narrow it in %s", err, p.BaseFile)
}

// CheckWithin tells where a policy, which may be a part of this one or of what
// it is to become, exceeds the node's maximum.
//
// A maximum that says nothing about files does not limit them; nor does one that
// says nothing about Landlock or the process. What every sandbox may do with
// files is part of every maximum.
func (p *Policies) CheckWithin(part *policy.Policy) error {
	if p.Maximum == nil {
		return nil
	}
	part, maximum := part.Clone(), p.Maximum.Clone()
	if maximum.Filesystem == nil {
		part.Filesystem, part.Landlock = nil, nil
		maximum.Landlock = nil
	} else {
		files := confine.RulesetFor(maximum)
		maximum.Filesystem.ReadOnly, maximum.Filesystem.ReadWrite = files.ReadOnly, files.ReadWrite
	}
	if maximum.Landlock == nil {
		part.Landlock = nil
	}
	if maximum.Process == nil {
		part.Process = nil
	}
	if err := prover.Within(part, maximum); err != nil {
		return fmt.Errorf("policy %q exceeds the node's maximum policy %s: %s", p.Name, p.MaximumFile, usertext.OneLine(err))
	}
	return nil
}

// CheckAddition is CheckWithin for what is to be added to the learned policy.
// Files that it does not name are left as the maximum has them.
func (p *Policies) CheckAddition(added *policy.Policy) error {
	if p.Maximum == nil {
		return nil
	}
	part := added.Clone()
	for _, r := range part.Network {
		r.Learned = true
	}
	if part.Filesystem == nil {
		part.Filesystem = p.Maximum.Filesystem
	}
	part.Landlock, part.Process = p.Maximum.Landlock, p.Maximum.Process
	return p.CheckWithin(part)
}

// exceedingApprovals are the ids of approved proposals whose rules exceed the
// maximum by themselves, such as when it was narrowed after their approval.
func (p *Policies) exceedingApprovals() (ids []string) {
	exceeding := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(p.Learned.Network)) {
		added := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{key: p.Learned.Network[key]}}
		exceeding[key] = p.CheckAddition(added) != nil
	}
	proposals, err := learn.List(state.Open(p.stateDir), p.Name)
	if err != nil {
		return nil // the error that this is to explain matters more
	}
	for i := range proposals {
		if exceeding[proposals[i].RuleName] {
			ids = append(ids, proposals[i].ID)
		}
	}
	return ids
}

// Files are the files that decide what a policy's name means, whether or
// not they exist.
func Files(c *config.Config, name string) []string {
	files := []string{filepath.Join(c.PolicyDir, name+".yaml"), state.Open(c.StateDir).LearnedPath(name)}
	if c.DefaultPolicy != "" {
		files = append(files, filepath.Join(c.PolicyDir, c.DefaultPolicy+".yaml"))
	}
	if c.MaximumPolicy != "" {
		files = append(files, c.MaximumPolicy)
	}
	return files
}
