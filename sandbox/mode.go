package sandbox

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cyphar/filepath-securejoin"
	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/audit"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy"
)

// mode is whether a sandbox is permissive, and until when.
type mode struct {
	mu       sync.Mutex
	on       bool
	deadline time.Time
	onExpiry string
}

func (m *mode) begin(r Request) {
	if r.Permissive {
		m.on, m.deadline, m.onExpiry = true, time.Now().Add(r.TTL), r.OnExpiry
	}
}

func (m *mode) permissive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

func (m *mode) name() string {
	if m.permissive() {
		return confine.ModePermissive
	}
	return confine.ModeEnforcing
}

// end makes the mode enforcing for good. It reports whether it was not before.
func (m *mode) end() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.on
	m.on = false
	return was
}

// view is what every decision is made by. The mode is read anew each time, so
// that no change of the policy can bring an ended permissive mode back.
func (s *Sandbox) view() proxy.View {
	return proxy.View{Engine: s.engine.Load(), Permissive: s.mode.permissive()}
}

// setEngine compiles the effective policy and makes it rule every later decision.
func (s *Sandbox) setEngine(p *Policies) error {
	engine, err := policy.Compile(p.Effective, policy.Options{ResolveBinary: s.resolveBinary})
	if err != nil {
		return fmt.Errorf("policy %q: %w", p.Name, err)
	}
	s.engine.Store(engine)
	return nil
}

// resolveBinary follows the symbolic links of a path in the first container's
// root file system: the kernel knows a process by what they lead to.
func (s *Sandbox) resolveBinary(path string) string {
	root := s.request.Rootfs
	if root == "" {
		return ""
	}
	resolved, err := securejoin.SecureJoin(root, path)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(root, resolved)
	if err != nil {
		return ""
	}
	return "/" + rel
}

// Reload makes the policy's files rule. A policy that does not validate leaves
// the one in force.
func (s *Sandbox) Reload() error {
	if !s.begin() {
		return errEnding
	}
	defer s.wg.Done()
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := s.applyFiles(); err != nil {
		s.recordError("the policy was not reloaded", err)
		return err
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "LOADED",
		Message: fmt.Sprintf("policy %s reloaded", s.request.Policy)})
	return nil
}

// applyFiles makes the policy's files rule connections and later execs, and
// closes what they no longer allow. s.applying must be held.
func (s *Sandbox) applyFiles() error {
	p, err := LoadPolicies(s.config, s.request.Policy)
	if err != nil {
		return err
	}
	if err := s.setEngine(p); err != nil {
		return err
	}
	s.reconsider()
	return confine.WriteConfinement(s.confineDir(), s.confinement(p))
}

// startTimer ends permissive mode in time.
func (s *Sandbox) startTimer() {
	if !s.mode.permissive() {
		return
	}
	timer := time.AfterFunc(time.Until(s.mode.deadline), s.expire)
	context.AfterFunc(s.ctx, func() { timer.Stop() })
}

// expire ends permissive mode. The network enforces from this moment, whatever
// else fails.
func (s *Sandbox) expire() {
	if !s.begin() {
		return
	}
	defer s.wg.Done()
	if !s.mode.end() {
		return
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "EXPIRED", Severity: audit.SeverityMedium,
		Message: fmt.Sprintf("permissive mode is over after %s; on expiry: %s", s.request.TTL, s.mode.onExpiry)})
	s.tighten()
	if err := s.updateInfo(func() { s.info.Mode = confine.ModeEnforcing }); err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	if s.mode.onExpiry == annotations.OnExpiryStop {
		s.stopWorkload()
	}
}

// tighten makes what was set up for permissive mode enforcing. Where that fails,
// later execs are refused rather than left unconfined.
func (s *Sandbox) tighten() {
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := s.applyFiles(); err != nil {
		s.reconsider()
		s.recordError("the confinement of later execs was not tightened, so that they are refused", err)
		s.refuseExecs()
	}
}
