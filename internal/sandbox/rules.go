// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"slices"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

// rules are what decides at one moment. They are replaced as a whole.
type rules struct {
	policies *policystore.Policies
	snapshot decision.Snapshot // but for the mode
	files    *confine.Ruleset
}

// snapshot is what every decision is made by. The mode is read anew each time, so
// that no change of the policy can bring an ended permissive mode back.
func (s *Sandbox) snapshot() decision.Snapshot {
	snapshot := s.rules.Load().snapshot
	snapshot.Permissive = s.mode.permissive()
	return snapshot
}

// setRules compiles policies that do not exceed the maximum and makes them rule
// every later decision.
func (s *Sandbox) setRules(p *policystore.Policies) (err error) {
	if err := p.CheckMaximum(); err != nil {
		return err
	}
	r := &rules{policies: p, files: s.rulesetFor(p.Effective)}
	options := engine.Options{
		BinaryAliases: s.programs.aliases, HostAliases: s.hostAliases(), Trusted: s.config.Addresses.Prefixes(),
	}
	if r.snapshot, err = p.Compile(s.never, options); err != nil {
		return err
	}
	// A supervisor that takes over goes by the same links.
	if err := s.remember(entry{Programs: s.programs.save()}); err != nil {
		return err
	}
	s.rules.Store(r)
	return nil
}

// rulesetFor is what a policy says of this sandbox's files.
func (s *Sandbox) rulesetFor(p *policy.Policy) *confine.Ruleset {
	r := confine.RulesetFor(p)
	r.IncludeWorkdir = r.IncludeWorkdir && !s.request.WithoutWorkdir
	return r
}

// confinement is what later execs get. Landlock is not applied in permissive
// mode, but for what the maximum says about files.
func (s *Sandbox) confinement(p *policystore.Policies) confine.Confinement {
	enforcing := func(p *policy.Policy) confine.Confinement {
		r := s.rulesetFor(p)
		r.KernelABI = s.landlock
		if s.config.Confinement.NestedSandboxes && r.Compatibility != policy.CompatibilityHardRequirement {
			r.KernelABI = confine.NoLandlock // under which nobody mounts anything
		}
		return confine.Confinement{Mode: confine.ModeEnforcing, Landlock: r}
	}
	switch {
	case !s.mode.permissive():
		return enforcing(p.Effective)
	case p.Maximum != nil && p.Maximum.Filesystem != nil:
		c := enforcing(p.Maximum)
		c.Observed = true
		return c
	default:
		return confine.Confinement{Mode: confine.ModePermissive, Observed: true}
	}
}

// Reload makes the policy's files rule. Where they do not validate, or exceed
// the maximum, what is in force stays.
func (s *Sandbox) Reload() error {
	if !s.begin() {
		return errEnding
	}
	defer s.wg.Done()
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.reload()
}

// reloadIfChanged is Reload for files that may be the same as when they were
// last read.
func (s *Sandbox) reloadIfChanged() {
	if !s.begin() {
		return
	}
	defer s.wg.Done()
	s.applying.Lock()
	defer s.applying.Unlock()
	if !slices.Equal(s.seen, markFiles(policystore.Files(s.config, s.request.Policy))) {
		_ = s.reload() // it is on record
	}
}

const lastValidStays = "the policy was not reloaded: the last valid one stays in force"

// reload reads the files, makes them rule connections and later execs, and
// closes what they no longer allow. What came of it is recorded, and said in
// sandbox.json. s.applying must be held.
func (s *Sandbox) reload() error {
	// Files that change while they are read have another mark the next time.
	s.seen = markFiles(policystore.Files(s.config, s.request.Policy))
	p, err := policystore.Load(s.config, s.request.Policy)
	if err == nil {
		err = s.setRules(p)
	}
	if err != nil {
		s.savePolicies() // before anybody is told that they stay
	}
	s.notePolicyError(err)
	if err != nil {
		s.recordError(lastValidStays, err)
		return err
	}
	s.forgetPolicies()
	if err := s.applyRules(); err != nil {
		s.recordError("the policy was not reloaded for later execs", err)
		return err
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "LOADED",
		Message: fmt.Sprintf("policy %s reloaded", s.request.Policy)})
	return nil
}

// applyRules holds what was admitted before, and later execs, to the rules and
// the mode. s.applying must be held.
func (s *Sandbox) applyRules() error {
	s.reconsider()
	if s.outer == nil {
		return nil // nothing may be started yet
	}
	return confine.WriteConfinement(s.confineDir(), s.confinement(s.rules.Load().policies))
}

// notePolicyError says in sandbox.json whether the policy's files are in force.
func (s *Sandbox) notePolicyError(err error) {
	text := ""
	if err != nil {
		text = audit.Escape(err.Error(), maxPolicyError)
	}
	s.mu.Lock()
	same := s.info.PolicyError == text
	s.mu.Unlock()
	if same {
		return
	}
	if err := s.updateInfo(func() { s.info.PolicyError = text }); err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
}

// maxPolicyError bounds what sandbox.json says of a policy that is not in force,
// in bytes.
const maxPolicyError = 4096
