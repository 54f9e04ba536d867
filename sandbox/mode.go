package sandbox

import (
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

// setView compiles the effective policy and makes it rule every later decision.
func (s *Sandbox) setView(p *Policies) error {
	engine, err := policy.Compile(p.Effective, policy.Options{ResolveBinary: s.resolveBinary})
	if err != nil {
		return fmt.Errorf("policy %q: %w", p.Name, err)
	}
	s.view.Store(&proxy.View{Engine: engine, Permissive: s.mode.permissive()})
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
	p, err := LoadPolicies(s.config, s.request.Policy)
	if err != nil {
		s.recordError("the policy was not reloaded", err)
		return err
	}
	if err := s.apply(p); err != nil {
		s.recordError("the policy was not reloaded", err)
		return err
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "LOADED", Message: fmt.Sprintf("policy %s reloaded", p.Name)})
	return nil
}

// apply makes a policy rule connections and later execs, and closes what it no
// longer allows.
func (s *Sandbox) apply(p *Policies) error {
	if err := s.setView(p); err != nil {
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
	s.wg.Go(func() {
		<-s.ctx.Done()
		timer.Stop()
	})
}

// expire ends permissive mode. The network enforces from this moment, whatever
// else fails.
func (s *Sandbox) expire() {
	if !s.mode.end() {
		return
	}
	s.view.Store(&proxy.View{Engine: s.view.Load().Engine})
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "EXPIRED", Severity: audit.SeverityMedium,
		Message: fmt.Sprintf("permissive mode is over after %s; on expiry: %s", s.request.TTL, s.mode.onExpiry)})
	p, err := LoadPolicies(s.config, s.request.Policy)
	if err == nil {
		err = s.apply(p)
	}
	if err != nil {
		s.reconsider()
		s.recordError("the confinement of later execs was not tightened, so that they are refused", err)
		s.refuseExecs()
	}
	if err := s.updateInfo(func(i *Info) { i.Mode = confine.ModeEnforcing }); err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	if s.mode.onExpiry == annotations.OnExpiryStop {
		s.stopWorkload()
	}
}
