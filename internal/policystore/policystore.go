// SPDX-License-Identifier: Apache-2.0

// Package policystore knows what a policy's name means on this node: the
// operator's file or the node's default, the rules approved for it, and the
// maximum that bounds them.
package policystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/internal/validname"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// Policies is everything that is known under one policy's name.
type Policies struct {
	Name      string
	Base      *policy.Policy // the operator's, or the default
	BaseFile  string         // where Base was read; empty for the built-in default
	Learned   *policy.Policy // the approved rules
	Effective *policy.Policy // Base and Learned together
	Warnings  []policy.Warning
	// Maximum is the node's maximum policy, read from MaximumFile; nil: there is
	// none.
	Maximum     *policy.Policy
	MaximumFile string
	// Named is false where neither the operator, nor an approval, nor a permissive run has
	// made a policy of this name, and Base is the default that stands in for it.
	Named bool

	stateDir string
}

// maxPolicyFile bounds a policy file, in bytes.
const maxPolicyFile = 8 << 20

// Load reads the policy of a name: the operator's file
// policy_dir/NAME.yaml, or else the node's default policy, and the rules
// approved for the name; and the node's maximum policy, which CheckMaximum holds
// them to. A file that does not validate is an error.
func Load(c *config.Config, name string) (*Policies, error) {
	if err := validname.Check(name); err != nil {
		return nil, fmt.Errorf("policy name: %w", err)
	}
	p := &Policies{Name: name, stateDir: c.StateDir}
	if err := p.loadBase(c); err != nil {
		return nil, err
	}
	if err := p.loadMaximum(c); err != nil {
		return nil, err
	}
	learned, err := learn.LearnedPolicy(state.Open(c.StateDir), name)
	if err != nil {
		return nil, err
	}
	p.Named = p.Named || HasLearned(state.Open(c.StateDir), name)
	p.Learned, p.Effective = learned, policy.Merge(p.Base, learned)
	return p, nil
}

// HasLearned reports whether there are approved rules for a policy, or a permissive run that may have needed none.
func HasLearned(store *state.Store, name string) bool {
	if _, err := os.Stat(store.LearnedPath(name)); err == nil {
		return true
	}
	runs, err := store.Runs(name)
	return err == nil && len(runs) > 0
}

// Compile makes what decides by the policies. The mode is the caller's to set.
func (p *Policies) Compile(never *engine.Endpoints, o engine.Options) (s decision.Snapshot, err error) {
	s.Never = never
	if s.Effective, err = engine.Compile(p.Effective, o); err != nil {
		return s, fmt.Errorf("policy %q: %w", p.Name, err)
	}
	if p.Maximum != nil {
		if s.Maximum, err = engine.Compile(p.Maximum, o); err != nil {
			return s, fmt.Errorf("maximum_policy %s: %w", p.MaximumFile, err)
		}
	}
	return s, nil
}

// Snapshot is what would decide in an enforcing sandbox of this node whose effective policy is p.
func Snapshot(c *config.Config, p *policy.Policy) (decision.Snapshot, error) {
	policies := &Policies{Name: "given", Effective: p}
	if err := policies.loadMaximum(c); err != nil {
		return decision.Snapshot{}, err
	}
	never, err := engine.ParseEndpoints(c.Permissive.Never)
	if err != nil {
		return decision.Snapshot{}, fmt.Errorf("permissive.never: %w", err)
	}
	return policies.Compile(never, engine.Options{Trusted: c.Addresses.Prefixes()})
}

func (p *Policies) loadBase(c *config.Config) error {
	found, err := p.loadFile(filepath.Join(c.PolicyDir, p.Name+".yaml"))
	if err != nil || found {
		p.Named = found
		return err
	}
	if c.DefaultPolicy == "" {
		p.Base = policy.Default()
		return nil
	}
	found, err = p.loadFile(filepath.Join(c.PolicyDir, c.DefaultPolicy+".yaml"))
	if err == nil && !found {
		err = fmt.Errorf("default_policy: %s has no %s.yaml", c.PolicyDir, c.DefaultPolicy)
	}
	return err
}

func (p *Policies) loadFile(path string) (found bool, err error) {
	base, warnings, err := readPolicy(path)
	if base == nil || err != nil {
		return false, err
	}
	p.Base, p.Warnings, p.BaseFile = base, warnings, path
	return true, nil
}

// readPolicy reads a policy file that only root can change; a missing one is no
// error, and no policy.
func readPolicy(path string) (*policy.Policy, []policy.Warning, error) {
	data, err := safefile.Read(path, maxPolicyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	p, warnings, err := policy.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("policy %s: %w", path, err)
	}
	return p, warnings, nil
}
