// SPDX-License-Identifier: Apache-2.0

// Package sandbox owns one sandbox's lifetime: it ties the sealed network
// namespace, the proxy, the DNS server, the learner and the files on disk
// together, changes the mode when a permissive time is over, and takes
// everything down when the last container is gone. Rewriting bundles and
// calling the low-level runtime is package runtime's; hosting a sandbox in a
// process (a detached supervisor or the containerd shim) is its caller's.
package sandbox

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/confine/filter"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/internal/version"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/chain"
	"openshell.ai/openshell/proxy/ingress"
)

// Sandbox is a running sandbox.
type Sandbox struct {
	config  *config.Config
	request Request
	dir     string
	ready   Ready // what is asked for it may come after the sandbox's end
	store   *state.Store
	process *supervisorLog // nil: this process's messages go elsewhere
	log     *audit.Logger
	learner *learn.Learner
	thisRun learn.Run
	denials denials

	inner, outer *netns.Namespace    // outer is nil until a late network is complete
	user         *os.File            // the user namespace that was made with inner, or nil
	lent         bool                // outer has the engine's addresses, which are the workload's
	own          []netip.Addr        // those addresses; applying guards what follows late changes
	native       []string            // devices that the kernel made in inner
	landlock     int                 // the version of the kernel's, or confine.NoLandlock
	placeholders *netns.Placeholders // in inner, for the engine's devices; nil where the network is not late
	unrouted     *netns.Namespace    // what they lead to
	proxy        *proxy.Proxy
	ingress      *ingress.Relay // where the outer namespace is the engine's
	authority    *proxy.CA
	nameservers  []netip.AddrPort
	hosts        hosts
	upstreamCAs  func() *x509.CertPool
	siteProxy    *chain.Proxy // nil where there is none
	trust        trust        // of the first container
	programs     programs
	mode         mode
	never        *engine.Endpoints // for which permissive mode does not hold
	rules        atomic.Pointer[rules]
	applying     sync.Mutex  // held while the policy or the mode changes
	keeper       *keeperLink // nil: nobody takes over from this supervisor
	seen         []fileMark  // of the policy's files, when they were last read; applying guards it

	ctx    context.Context // ends with the sandbox
	cancel context.CancelFunc
	wg     sync.WaitGroup // what must end before the files are removed
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards the next three, and sandbox.json
	info    Info       // but for Containers
	members []*member
	ending  bool // nothing may begin any more
	removed bool // the directory has gone, or is about to
	// stopping: no container may live on.
	stopping bool
}

// Start makes a sandbox and puts it to work. Where it fails, nothing is left.
func Start(c *config.Config, r Request) (*Sandbox, error) { return startBy(systemClock(), c, r, nil) }

// ranBefore reports whether a permissive run of a policy has been, also one that is just ending.
func ranBefore(c *config.Config, policyName string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), stoppedWait)
	defer cancel()
	_ = Settle(ctx, c.RunDir, policyName) // what cannot be written is said elsewhere
	return policystore.HasLearned(state.Open(c.StateDir), policyName)
}

// startBy is Start. link is for a supervisor's process, and nil for others.
func startBy(t clock, c *config.Config, r Request, link *keeperLink) (_ *Sandbox, err error) {
	seen := markFiles(policystore.Files(c, r.Policy))
	policies, err := policystore.Load(c, r.Policy)
	if err != nil {
		return nil, err
	}
	path := r.Outer.Kind == OuterPath
	outer, err := r.Outer.identify()
	if err != nil {
		return nil, err
	}
	r.HostNetwork = r.HostNetwork || path && r.Outer.Kind == OuterHost
	if r.PolicyNamed && !policies.Named && !r.Permissive && !ranBefore(c, r.Policy) {
		return nil, fmt.Errorf("policy %q does not exist: write %s, or run once with openshell.ai/permissive=true and approve what it proposes",
			r.Policy, filepath.Join(c.PolicyDir, r.Policy+".yaml"))
	}
	if err := policies.CheckMaximum(); err != nil {
		return nil, err
	}
	landlock, err := checkLandlock(policies)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{
		config: c, request: r, store: state.Open(c.StateDir), done: make(chan struct{}),
		seen: seen, mode: mode{clock: t}, keeper: link,
		hosts: newHosts(r.DNS), landlock: landlock,
	}
	if err := s.readSettings(); err != nil {
		return nil, err
	}
	if err := s.makeDir(outer); err != nil {
		return nil, err
	}
	first := s.programs.add(r.Container)
	s.process = openLog(s.store.SandboxDir(r.ID), s.failed)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if err := s.prepare(policies); err != nil {
		return nil, err
	}
	if err := s.serve(policies, first); err != nil {
		return nil, err
	}
	return s, nil
}

// readSettings reads what the node's administrator or the container may have got
// wrong, before anything is made.
func (s *Sandbox) readSettings() (err error) {
	if s.nameservers, err = s.readNameservers(); err != nil {
		return err
	}
	if s.upstreamCAs, err = s.trustedUpstream(); err != nil {
		return err
	}
	if s.siteProxy, err = UpstreamProxy(s.config.UpstreamProxy); err != nil {
		return err
	}
	if s.never, err = engine.ParseEndpoints(s.config.Permissive.Never); err != nil {
		return fmt.Errorf("permissive.never: %w", err)
	}
	return nil
}

// checkLandlock returns the version of the kernel's Landlock interface, or
// confine.NoLandlock. It refuses a policy that must have Landlock where the kernel
// has none, before anything starts.
func checkLandlock(p *policystore.Policies) (int, error) {
	abi, err := confine.KernelLandlock()
	if err == nil && abi == confine.NoLandlock && insists(p) {
		_, err = confine.LandlockABI()
		err = fmt.Errorf("policy %q: landlock.compatibility is hard_requirement: %w", p.Name, err)
	}
	return abi, err
}

// insists reports whether a policy must have Landlock.
func insists(p *policystore.Policies) bool {
	l := p.Effective.Landlock
	return l != nil && l.Compatibility == policy.CompatibilityHardRequirement
}

func required(p *policystore.Policies) []string {
	if !insists(p) {
		return nil
	}
	rules := p.Effective.FilesystemRules()
	return slices.Concat(rules.ReadOnly, rules.ReadWrite)
}

// makeDir makes the sandbox's directory. outer is the identity of a namespace
// that others share.
func (s *Sandbox) makeDir(outer netns.ID) error {
	self, err := thisProcess()
	if err != nil {
		return err
	}
	s.mode.begin(s.request)
	s.info = Info{
		ID: s.request.ID, Policy: s.request.Policy, Mode: s.mode.name(), Started: time.Now(),
		Deadline: s.mode.ends.wall, OnExpiry: s.mode.onExpiry, Supervisor: self,
		LastState: Starting, Version: version.String(),
		// By these others find it while it starts, and clear up after a kill.
		Outer: outer, Shared: s.request.Outer.Kind == OuterPath, OuterPath: s.request.Outer.Path,
	}
	if s.mode.permissive() {
		s.info.TTL = s.request.TTL.String()
	}
	if s.dir, err = makeDirectory(s.config.RunDir, s.info); err != nil {
		return err
	}
	for _, d := range []string{s.confineDir(), s.tlsDir()} {
		if err = makeReadable(d); err != nil {
			return errors.Join(fmt.Errorf("make sandbox directory: %w", err), removeDirectory(s.dir))
		}
	}
	return nil
}

func (s *Sandbox) confineDir() string { return filepath.Join(s.dir, "confine") }

// tlsDir has a directory of CA files for the containers that have equal ones.
func (s *Sandbox) tlsDir() string { return filepath.Join(s.dir, "tls") }

// prepare makes what the first container's bundle refers to. The network, the
// CA and the filter do not depend on each other.
func (s *Sandbox) prepare(p *policystore.Policies) error {
	tasks := []func() error{
		s.makeNetwork,
		s.makeAuthority,
		func() error { return s.makeConfinement(p) },
		func() error { return s.setRules(p) },
	}
	errs := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, task := range tasks {
		wg.Go(func() { errs[i] = task() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Sandbox) makeConfinement(p *policystore.Policies) error {
	filters, err := filter.Compile(filter.Options{NestedSandboxes: s.config.Confinement.NestedSandboxes})
	if err != nil {
		return err
	}
	if err := confine.WriteDir(s.confineDir(), filters.Loud, filters.Quiet, s.confinement(p)); err != nil {
		return err
	}
	// The launcher is mounted onto this file: the directory's own mount is
	// read-only by then, so that no mount point can be made.
	if err := os.WriteFile(filepath.Join(s.confineDir(), confine.InitName), nil, 0o755); err != nil {
		return fmt.Errorf("make the launcher's mount point: %w", err)
	}
	if err := makeReadable(filepath.Join(s.confineDir(), trustMountPoint)); err != nil {
		return fmt.Errorf("make the CA's mount point: %w", err)
	}
	if s.request.Outer.Kind == OuterLate {
		s.refuseExecs() // until it is admitted
	}
	return nil
}

// serve starts everything that runs, for the first container.
func (s *Sandbox) serve(p *policystore.Policies, first *containerPrograms) error {
	s.thisRun = s.run(p)
	if err := s.openRecords(); err != nil {
		return err
	}
	if s.outer != nil {
		if err := s.serveNetwork(); err != nil {
			return err
		}
	}
	s.ready = Ready{Inner: s.inner.Path(), Confine: s.confineDir(), TLS: s.trust.dir, Covers: s.trust.covers,
		Required: required(p)}
	if s.user != nil {
		s.ready.User = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.user.Fd())
	}
	s.mu.Lock()
	if s.info.Pending = s.outer == nil; !s.info.Pending {
		s.info.Outer = s.outer.ID()
	}
	s.info.Inner, s.info.InnerID = s.ready.Inner, s.inner.ID()
	s.mu.Unlock()
	if err := s.serveControl(); err != nil {
		return err
	}
	s.recordStart(p)
	s.recordUncovered(s.request.Container.ID, s.trust)
	// It opens the log, where a panic is told. Nothing waits for that.
	if s.process != nil {
		s.wg.Go(func() {
			slog.Info("sandbox started", "sandbox", s.request.ID, "pid", os.Getpid(), "version", version.String())
		})
	}
	s.startTimer()
	if err := s.followOwner(); err != nil {
		return err
	}
	s.wg.Go(s.watchPolicies)
	s.mu.Lock()
	s.info.LastState = Running
	s.mu.Unlock()
	return s.attach(first, s.request.Creator)
}

// openRecords opens what is written down about the run.
func (s *Sandbox) openRecords() (err error) {
	s.log, err = audit.Open(s.store.SandboxDir(s.request.ID), audit.Options{OCSF: s.config.Audit.OCSF, Lost: s.eventsLost})
	if err == nil {
		s.learner = learn.Start(s.store, s.thisRun, learn.Options{Record: s.record, Report: s.unwritten})
	}
	return err
}

func (s *Sandbox) run(p *policystore.Policies) learn.Run {
	r := learn.Run{
		ID:      fmt.Sprintf("%s-%d", time.Now().UTC().Format("20060102T150405.000"), os.Getpid()),
		Sandbox: s.request.ID, Container: s.request.Container.ID, Image: s.request.Container.Image,
		Policy: s.request.Policy, Mode: s.mode.name(), BasePolicySHA256: p.Base.Digest(), Started: time.Now(),
	}
	if s.mode.permissive() {
		r.TTL = s.request.TTL.String()
	}
	return r
}

// Ready returns what bundles of the sandbox's containers need.
func (s *Sandbox) Ready() Ready { return s.ready }

// Done is closed when the sandbox has ended and left nothing in the run
// directory.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// closeWait bounds how long the end waits for the last write of what was learned.
const closeWait = 10 * time.Second

// begin reports whether the sandbox goes on. Then Stop waits until the caller
// has called s.wg.Done.
func (s *Sandbox) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return false
	}
	s.wg.Add(1)
	return true
}

// Stop ends the sandbox: no connection lives on, what was learned is written,
// and the run directory is cleared. Evidence that cannot be written yet is waited
// for after that: see Done. It may be called any number of times.
func (s *Sandbox) Stop() {
	s.once.Do(func() {
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
		s.cancel()
		s.wg.Wait()
		written := s.closeRecords()
		s.dismissKeeper()
		if s.ingress != nil {
			if err := s.ingress.Remove(); err != nil {
				slog.Error("remove ingress rules", "error", err) // they lead nowhere any more
			}
		}
		if s.placeholders != nil { // the outer namespace and what is in it are this sandbox's
			if err := netns.RemoveDevices(s.outer); err != nil {
				slog.Error("the engine's devices may stay for a while", "error", err)
			}
		}
		for _, ns := range []*netns.Namespace{s.inner, s.foreignOuter()} {
			if ns != nil {
				ns.Close()
			}
		}
		if s.user != nil {
			s.user.Close()
		}
		if s.placeholders != nil {
			s.placeholders.Close()
		}
		for _, m := range s.members {
			if m.running() {
				continue
			}
			if err := m.RemoveMountPoints(s.config.RunDir); err != nil {
				slog.Error("remove what was made for a container", "container", m.ID, "error", err)
			}
		}
		if written {
			s.leave()
			return
		}
		s.stepAside()
		go func() {
			<-s.learner.Done()
			s.leave()
		}()
	})
}

// closeRecords ends the log and the learner. It reports whether all that was
// learned is on the disk.
func (s *Sandbox) closeRecords() (written bool) {
	written = true
	if s.learner != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeWait)
		defer cancel()
		if err := s.learner.Close(ctx); err != nil {
			s.recordError("the last evidence could not be written yet", err)
			select {
			case <-s.learner.Done(): // it never can be
			default:
				written = false
			}
		}
	}
	if s.log != nil {
		s.prune()
		s.recordStop()
		s.log.Close()
	}
	return written
}

// leave removes the sandbox's directory.
func (s *Sandbox) leave() {
	s.mu.Lock()
	s.removed = true
	s.mu.Unlock()
	s.info.leaveCgroup()
	if err := removeDirectory(s.dir); err != nil {
		slog.Error("sandbox directory", "error", err) // the next sweep tries again
	}
	s.process.close()
	close(s.done)
}

// foreignOuter is the outer namespace where it is not the process's own.
func (s *Sandbox) foreignOuter() *netns.Namespace {
	if home, err := netns.Home(); err != nil || home == s.outer {
		return nil
	}
	return s.outer
}
