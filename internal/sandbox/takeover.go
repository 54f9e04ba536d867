// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/keeper"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/internal/version"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy"
)

// SuperviseAgain takes over a sandbox whose supervisor has died, and runs it as
// Supervise does. Its keeper calls it.
func SuperviseAgain(c *config.Config) error {
	signals := notified()
	CaptureLog()
	unix.Umask(0o022)
	journal, entries, err := readJournal(os.NewFile(keeper.HeldFD, "journal"))
	if err != nil {
		return err
	}
	past, err := parseJournal(entries)
	if err != nil {
		return err
	}
	s, err := past.takeOver(c, journal)
	if errors.Is(err, errNothingLeft) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take over sandbox %s: %w", past.begun.Request.ID, err)
	}
	return s.runUntilDone(signals)
}

// errNothingLeft says that there is no sandbox any more to take over.
var errNothingLeft = errors.New("the sandbox has gone")

// past is what earlier supervisors of a sandbox knew.
type past struct {
	begun        *begun
	names        []numberedName
	hosts        []Resolver
	programs     []savedPrograms
	placeholders []netns.Placeholder
	creators     []creator
}

func parseJournal(entries []entry) (*past, error) {
	p := new(past)
	for _, l := range entries {
		switch {
		case l.Begun != nil:
			p.begun = l.Begun
		case l.Name != nil:
			p.names = append(p.names, *l.Name)
		case l.Hosts != nil:
			p.hosts = append(p.hosts, *l.Hosts)
		case l.Programs != nil:
			p.programs = l.Programs
		case l.Placeholders != nil:
			p.placeholders = l.Placeholders.List
		case l.Creator != nil:
			p.creators = append(p.creators, *l.Creator)
		}
	}
	if p.begun == nil || p.begun.Version != journalVersion {
		return nil, errors.New("what the last supervisor knew is of no known version")
	}
	return p, nil
}

// takeOver makes the sandbox that the last supervisor had.
func (p *past) takeOver(c *config.Config, m *journal) (_ *Sandbox, err error) {
	r := p.begun.Request
	seen := markFiles(policystore.Files(c, r.Policy))
	policies, invalid, err := lastValid(c, r)
	if err != nil {
		return nil, err
	}
	landlock, err := checkLandlock(policies)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{
		config: c, request: r, store: state.Open(c.StateDir), done: make(chan struct{}),
		seen: seen, mode: mode{clock: systemClock()}, hosts: newHosts(r.DNS), landlock: landlock,
		dir:    filepath.Join(sandboxesDir(c.RunDir), r.ID),
		keeper: &keeperLink{journal: m, program: os.NewFile(keeper.ProgramFD, "program"), ready: make(chan struct{})},
		native: p.begun.Native, thisRun: p.begun.Run,
	}
	s.process = openLog(s.store.SandboxDir(r.ID), s.failed)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, h := range p.hosts {
		s.hosts.read[h.HostsFile] = true
		s.hosts.Add(h.Hosts)
	}
	if s.authority, err = proxy.ReadCA(p.begun.Authority); err != nil {
		return nil, err
	}
	l, err := s.takeHeld(p.begun.Held)
	if err != nil {
		return nil, err
	}
	s.programs.after(p.programs)
	if err := s.enter(p.begun.Started); err != nil {
		return nil, err
	}
	if err := s.takeMode(p.begun.Ends); err != nil {
		return nil, err
	}
	if err := s.readSettings(); err != nil {
		return nil, err
	}
	members := s.takeMembers(p)
	if err := s.setRules(policies); err != nil {
		return nil, err
	}
	if err := s.serveAgain(p, l, members); err != nil {
		return nil, err
	}
	s.notePolicyError(invalid)
	if invalid == nil {
		s.forgetPolicies()
	} else {
		s.recordError(lastValidStays, invalid)
	}
	return s, nil
}

// lastValid returns the policies as the files have them now, or, where these are invalid, those that were in
// force, and why.
func lastValid(c *config.Config, r Request) (_ *policystore.Policies, invalid, err error) {
	now, invalid := policystore.Load(c, r.Policy)
	if invalid == nil {
		if invalid = now.CheckMaximum(); invalid == nil {
			return now, nil, nil
		}
	}
	saved, err := policystore.ReadSaved(filepath.Join(sandboxesDir(c.RunDir), r.ID, policiesFile), c.StateDir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; and those that were in force: %w", invalid, err)
	}
	return saved, invalid, nil
}

// policiesFile has the policies that are in force while their own files are invalid.
const policiesFile = "policies.json"

// savePolicies writes the policies in force for a supervisor that takes over.
func (s *Sandbox) savePolicies() {
	if s.keeper == nil {
		return
	}
	if err := s.rules.Load().policies.Save(filepath.Join(s.dir, policiesFile)); err != nil {
		s.recordError("if the supervisor dies the sandbox ends: the policy in force was not saved", err)
	}
}

// forgetPolicies removes what savePolicies wrote: the files are in force.
func (s *Sandbox) forgetPolicies() {
	if err := os.Remove(filepath.Join(s.dir, policiesFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.recordError("policies that are not in force any more are left behind", err)
	}
}

// enter makes this process the sandbox's supervisor, if there is still one to
// have.
func (s *Sandbox) enter(started time.Time) error {
	self, err := thisProcess()
	if err != nil {
		return err
	}
	unlock, err := lockDirectory(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errNothingLeft
	}
	if err != nil {
		return err
	}
	defer unlock()
	info, err := readInfo(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errNothingLeft
	}
	if err != nil {
		return err
	}
	if !info.Started.Equal(started) || info.Keeper.PID != os.Getppid() {
		return errNothingLeft // it is another of that name
	}
	// A process that ends closes its files, which the keeper saw, before it has ended.
	info.Supervisor.awaitEnd(lockWait)
	if info.Alive() {
		return fmt.Errorf("its supervisor, process %d, neither lives nor ends", info.Supervisor.PID)
	}
	s.info = info
	s.info.Containers = nil // see takeMembers
	s.info.Supervisor, s.info.Inner = self, s.inner.Path()
	s.ending = info.LastState == Ending
	if !s.ending {
		s.info.LastState = Starting
	}
	for _, c := range info.Containers {
		m := &member{containerPrograms: s.programs.add(c), leave: func() {}, pid: c.PID, confined: c.Confined}
		s.members = append(s.members, m)
	}
	return s.writeInfo()
}

// takeHeld opens what the keeper held.
func (s *Sandbox) takeHeld(names []string) (*listeners, error) {
	files := map[string][]*os.File{}
	for i, name := range names {
		fd := keeper.HeldFD + i
		unix.CloseOnExec(fd)
		f := s.keeper.journal.file
		if i > 0 {
			f = os.NewFile(uintptr(fd), name)
		}
		files[name] = append(files[name], f)
		s.keeper.held = append(s.keeper.held, f)
	}
	close(s.keeper.ready)
	unix.CloseOnExec(keeper.PipeFD)
	unix.CloseOnExec(keeper.ProgramFD)
	take := func(name string) (*netns.Namespace, error) {
		if len(files[name]) != 1 {
			return nil, nil
		}
		return netns.FromFile(files[name][0])
	}
	var errs [4]error
	s.inner, errs[0] = take(heldInner)
	s.outer, errs[1] = take(heldOuter)
	s.unrouted, errs[2] = take(heldNowhere)
	s.lent = s.request.Outer.Kind == OuterPath || s.request.Outer.Kind == OuterLate && s.outer != nil
	if s.outer == nil {
		s.outer, errs[3] = netns.Home()
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("take over the network: %w", err)
	}
	if s.inner == nil {
		return nil, errors.New("take over the network: there is none")
	}
	return takenListeners(files)
}

// takeMode goes on with what is left of permissive mode, by either clock.
func (s *Sandbox) takeMode(ends int64) error {
	if ends == 0 || s.info.Mode != confine.ModePermissive {
		return nil
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	elapsed := s.mode.clock.now().elapsed + time.Duration(ends-now)
	s.mode.on, s.mode.ends, s.mode.onExpiry = true, moment{s.info.Deadline, elapsed}, s.request.OnExpiry
	return nil
}

// takeMembers finds the containers' creators, and what their programs' links led
// to.
func (s *Sandbox) takeMembers(p *past) map[*member]*process {
	creators := map[*member]*process{}
	for _, m := range s.members {
		for _, saved := range p.programs {
			if saved.Root == m.Root && saved.ID == m.ID {
				s.programs.restore(m.containerPrograms, saved)
			}
		}
		creators[m] = nil
		for _, c := range p.creators {
			if c.Root == m.Root && c.ID == m.ID && c.Process.alive() {
				creators[m], _ = openProcess(c.Process.PID)
			}
		}
	}
	return creators
}

// serveAgain starts what runs in a sandbox.
func (s *Sandbox) serveAgain(p *past, l *listeners, creators map[*member]*process) error {
	if err := s.openRecords(); err != nil {
		return err
	}
	s.recordTakeOver()
	if s.mode.permissive() {
		s.recordLost("the supervisor was dead for a moment")
	}
	if s.ending {
		l.close()
		s.ending = false // for Stop to say so itself
		go s.Stop()
		return nil
	}
	if s.request.Outer.Kind == OuterLate && s.lent {
		if err := s.followEngine(p.placeholders); err != nil {
			return err
		}
	}
	var err error
	if s.own, err = s.ownAddresses(); err != nil {
		return err
	}
	if _, err := netns.Seal(s.inner, s.own); err != nil { // the engine may have changed them
		return err
	}
	if err := s.serveListeners(l, p.names); err != nil {
		return err
	}
	if err := confine.WriteConfinement(s.confineDir(), s.confinement(s.rules.Load().policies)); err != nil {
		return err
	}
	s.ready = Ready{Inner: s.inner.Path(), Confine: s.confineDir(), Required: required(s.rules.Load().policies)}
	if err := os.Remove(filepath.Join(s.dir, controlSocket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.serveControl(); err != nil {
		return err
	}
	s.startTimer()
	if o := p.begun.Owner; o.PID != 0 && !o.alive() {
		go s.stopWorkload()
	} else if err := s.followOwner(); err != nil {
		return err
	}
	s.wg.Go(s.watchPolicies)
	// The last supervisor may have died before it said that the network is complete.
	err = s.updateInfo(func() {
		s.info.LastState, s.info.Pending, s.info.Outer = Running, false, s.outer.ID()
	})
	if err != nil {
		return err
	}
	for m, creator := range creators {
		s.rejoin(m, creator)
	}
	return s.followKeeper()
}

// rejoin watches a container that was there before. creator may be nil.
func (s *Sandbox) rejoin(m *member, creator *process) {
	if !s.begin() {
		return
	}
	ctx, leave := context.WithCancel(s.ctx)
	s.mu.Lock()
	m.leave = leave
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		s.watch(ctx, m, creator)
	}()
}

// followKeeper has the keeper that started this supervisor, and a new one where it
// dies.
func (s *Sandbox) followKeeper() error {
	p, err := openProcess(os.Getppid())
	if err == nil {
		err = s.noteKeeper(os.Getppid(), os.NewFile(keeper.PipeFD, "pipe"))
	}
	if err != nil {
		return fmt.Errorf("watch the keeper: %w", err)
	}
	if s.begin() {
		go func() {
			defer s.wg.Done()
			if s.keeperDies(p) {
				s.keep()
			}
		}()
	}
	return nil
}

func (s *Sandbox) recordTakeOver() {
	const text = "the supervisor died and was started again: connections that were open are cut, and at most the last second of evidence is lost"
	slog.Error(text, "sandbox", s.request.ID, "pid", os.Getpid(), "version", version.String())
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "RESTART", Severity: audit.SeverityHigh, Message: text})
}
