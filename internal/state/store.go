// SPDX-License-Identifier: Apache-2.0

// Package state owns the files under the state directory: where they are, how they are
// written (whole or not at all, and durably), and the lock that orders the writers of one
// policy. What the files mean is the business of the packages that write them.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/validname"
)

// Store is a state directory. Its methods may be called at the same time, and by
// several processes.
type Store struct{ dir string }

// Open names the state directory, usually /var/lib/openshell. It does no I/O: directories
// appear (mode 0700) with the first file in them.
func Open(stateDir string) *Store { return &Store{dir: stateDir} }

// CheckName reports whether name can name a policy, a proposal, a run or a sandbox, as
// package validname has it.
func CheckName(name string) error {
	if err := validname.Check(name); err != nil {
		return fmt.Errorf("name %.140q: %w", name, err)
	}
	return nil
}

// unusable stands for an invalid name in a path. The kernel cannot be given a path with
// a NUL in it, so whatever is tried on such a path fails, rather than reaching a
// file outside of the store.
const unusable = "\x00"

func safe(name string) string {
	if CheckName(name) != nil {
		return unusable
	}
	return name
}

// PolicyDir is where all of a policy's files are. For a name that CheckName refuses it
// and the paths below it are paths that no file can be opened by.
func (s *Store) PolicyDir(name string) string {
	return filepath.Join(s.dir, "policies", safe(name))
}

// LearnedPath is a policy's approved rules.
func (s *Store) LearnedPath(name string) string {
	return filepath.Join(s.PolicyDir(name), "learned.yaml")
}

// ProposalPath is one proposal of a policy.
func (s *Store) ProposalPath(name, id string) string {
	return filepath.Join(s.proposalsDir(name), safe(id)+".json")
}

// RunPath is the record of one permissive run.
func (s *Store) RunPath(name, run string) string {
	return filepath.Join(s.runsDir(name), safe(run)+".json")
}

// SandboxDir is where a sandbox's logs go.
func (s *Store) SandboxDir(id string) string {
	return filepath.Join(s.dir, "sandboxes", safe(id))
}

func (s *Store) proposalsDir(name string) string {
	return filepath.Join(s.PolicyDir(name), "proposals")
}

func (s *Store) runsDir(name string) string {
	return filepath.Join(s.PolicyDir(name), "runs")
}

// Policies lists the policies that have state, sorted.
func (s *Store) Policies() ([]string, error) {
	names, err := list(filepath.Join(s.dir, "policies"), func(e fs.DirEntry) (string, bool) {
		return e.Name(), e.IsDir()
	})
	if err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	return names, nil
}

// ProposalIDs lists a policy's proposals, sorted; none for a policy without state.
func (s *Store) ProposalIDs(name string) ([]string, error) {
	return s.listJSON(name, s.proposalsDir(name))
}

// ProposalSizes are the lengths of the files of a policy's proposals, in bytes, by their ids.
func (s *Store) ProposalSizes(name string) (map[string]int64, error) {
	ids, err := s.ProposalIDs(name)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(ids))
	for _, id := range ids {
		info, err := os.Lstat(s.ProposalPath(name, id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
		sizes[id] = info.Size()
	}
	return sizes, nil
}

// Runs lists the recorded runs of a policy, sorted; none for a policy without state.
func (s *Store) Runs(name string) ([]string, error) {
	return s.listJSON(name, s.runsDir(name))
}

func (s *Store) listJSON(policy, dir string) ([]string, error) {
	if err := CheckName(policy); err != nil {
		return nil, err
	}
	names, err := list(dir, func(e fs.DirEntry) (string, bool) {
		stem, ok := strings.CutSuffix(e.Name(), ".json")
		return stem, ok && e.Type().IsRegular()
	})
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", policy, err)
	}
	return names, nil
}

// list returns the valid names that pick finds in dir. Temporary files start with a dot,
// which no valid name does.
func list(dir string, pick func(fs.DirEntry) (string, bool)) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := pick(e); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
