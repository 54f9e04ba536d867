// SPDX-License-Identifier: Apache-2.0

package policystore

import (
	"encoding/json"
	"fmt"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/policy"
)

// saved is what Save writes. The policies are YAML, as in their own files.
type saved struct {
	Format      string `json:"format"`
	Name        string `json:"name"`
	Named       bool   `json:"named"`
	BaseFile    string `json:"base_file"`
	Base        string `json:"base"`
	Learned     string `json:"learned"`
	MaximumFile string `json:"maximum_file"`
	Maximum     string `json:"maximum"`
}

const savedFormat = "openshell-policies/1"

// maxSaved bounds a file of Save's, in bytes: three policies, escaped.
const maxSaved = 8 * maxPolicyFile

// Save writes the policies to a file, for a supervisor that takes over while the policies' own files are invalid.
func (p *Policies) Save(path string) error {
	s := saved{Format: savedFormat, Name: p.Name, Named: p.Named, BaseFile: p.BaseFile, MaximumFile: p.MaximumFile}
	for text, policies := range map[*string]*policy.Policy{&s.Base: p.Base, &s.Learned: p.Learned, &s.Maximum: p.Maximum} {
		if policies == nil {
			continue
		}
		data, err := policy.Marshal(policies)
		if err != nil {
			return fmt.Errorf("save policy %q: %w", p.Name, err)
		}
		*text = string(data)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save policy %q: %w", p.Name, err)
	}
	return fileio.Replace(path, data, 0o600)
}

// ReadSaved reads what Save wrote.
func ReadSaved(path, stateDir string) (*Policies, error) {
	data, err := safefile.Read(path, maxSaved)
	if err != nil {
		return nil, err
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Format != savedFormat {
		return nil, fmt.Errorf("%s: its format %q is not known", path, s.Format)
	}
	p := &Policies{Name: s.Name, Named: s.Named, BaseFile: s.BaseFile, MaximumFile: s.MaximumFile, stateDir: stateDir}
	if p.Base, _, err = policy.Parse([]byte(s.Base)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.Learned, err = learn.ParseLearned([]byte(s.Learned)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.MaximumFile != "" {
		if p.Maximum, _, err = policy.Parse([]byte(s.Maximum)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	p.Effective = policy.Merge(p.Base, p.Learned)
	return p, nil
}
