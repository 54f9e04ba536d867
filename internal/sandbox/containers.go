// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"openshell.ai/openshell/internal/confine"
)

// member is a container of a running sandbox. A container that is made anew
// under the same id is another one.
type member struct {
	*containerPrograms                    // does not change
	leave              context.CancelFunc // ends the watch over it
	pid                int                // of its first process, once known; s.mu guards it
	confined           *Confined          // once known; s.mu guards it
}

// errEnding says that a sandbox takes nothing more.
var errEnding = errors.New("the sandbox is ending")

// join makes one more container part of the sandbox, and returns what its bundle
// needs. Its own root file system decides what its programs are called, and which
// CAs they trust.
func (s *Sandbox) join(r joinRequest) (Ready, error) {
	if !s.begin() {
		return Ready{}, errEnding
	}
	defer s.wg.Done()
	trusted, err := s.makeTrust(r.Stores)
	if err != nil {
		return Ready{}, err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	added := s.programs.add(r.Container)
	if err := s.setRules(s.rules.Load().policies); err != nil {
		s.programs.remove(added)
		return Ready{}, err
	}
	if err := s.attach(added, r.Creator); err != nil {
		s.programs.remove(added)
		return Ready{}, err
	}
	s.recordUncovered(r.Container.ID, trusted)
	ready := s.ready
	ready.TLS, ready.Covers = trusted.dir, trusted.covers
	ready.User = "" // its own configuration names the pod's, or it would not be in the pod
	return ready, s.addHosts(r.Container.ID, r.DNS)
}

// attach makes a container part of the sandbox for as long as its first
// process lives. creator is the process that makes it: when that has ended and
// there is no container, making it failed.
func (s *Sandbox) attach(c *containerPrograms, creator int) error {
	p, err := openProcess(creator)
	if err != nil {
		return fmt.Errorf("watch the container's creator: %w", err)
	}
	if !s.begin() {
		p.close()
		return errEnding
	}
	ctx, leave := context.WithCancel(s.ctx)
	m := &member{containerPrograms: c, leave: leave}
	if err = s.rememberCreator(c.Container, creator); err == nil {
		err = s.updateInfo(func() { s.members = append(s.members, m) })
	}
	if err != nil {
		s.removeMembers(func(other *member) bool { return other == m })
		p.close()
		s.wg.Done()
		return err
	}
	go func() {
		defer s.wg.Done()
		s.watch(ctx, m, p)
	}()
	return nil
}

func (s *Sandbox) rememberCreator(c Container, pid int) error {
	if s.keeper == nil {
		return nil
	}
	process, err := refTo(pid)
	if err != nil {
		return nil // it has ended: making the container failed
	}
	return s.remember(entry{Creator: &creator{c.Root, c.ID, process}})
}

// Detach takes a deleted container out of the sandbox, which ends with its
// last.
func (s *Sandbox) Detach(root, id string) {
	s.removeMembers(func(m *member) bool { return m.Root == root && m.ID == id })
}

// removeMembers takes containers out of the sandbox. The last ones stay in its
// information: whoever deletes them waits for the sandbox's end.
func (s *Sandbox) removeMembers(which func(*member) bool) {
	s.mu.Lock()
	left := slices.DeleteFunc(slices.Clone(s.members), which)
	if s.ending || len(left) == len(s.members) {
		s.mu.Unlock()
		return
	}
	leaving := slices.DeleteFunc(slices.Clone(s.members), func(m *member) bool { return slices.Contains(left, m) })
	last := len(left) == 0
	var err error
	if last {
		s.end()
	} else {
		s.members = left
		err = s.writeInfo()
	}
	s.mu.Unlock()
	if err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	for _, m := range leaving {
		m.leave()
		s.programs.remove(m.containerPrograms)
		if err := m.RemoveMountPoints(s.config.RunDir); err != nil {
			s.recordError("what was made for container "+m.ID+" is left", err)
		}
	}
	if last {
		go s.Stop()
	}
}

// end lets nothing begin any more, and says so. s.mu must be held.
func (s *Sandbox) end() {
	if s.ending {
		return
	}
	s.info.LastState = Ending
	if err := s.writeInfo(); err != nil {
		slog.Error("sandbox.json was not updated", "error", err)
	}
	s.ending = true
}

// watch follows a container from before it exists to its end.
func (s *Sandbox) watch(ctx context.Context, m *member, creator *process) {
	defer s.removeMembers(func(other *member) bool { return other == m })
	var (
		init *process
		pid  int
		err  error
	)
	if creator == nil { // of a container that was there before this supervisor
		init, pid, err = m.openInit()
	} else {
		init, pid, err = m.awaitInit(ctx, creator)
		creator.close()
	}
	m.ReleaseBundle(s.config.RunDir)
	if err != nil {
		return
	}
	defer init.close()
	defer context.AfterFunc(ctx, init.close)()
	stopping := false
	if err := s.updateInfo(func() { m.pid, stopping = pid, s.stopping }); err != nil {
		s.recordError("sandbox.json was not updated", err)
	}
	if stopping { // it was made too late for stopWorkload
		if err := init.kill(); err != nil {
			s.recordError("container "+m.ID+" could not be stopped", err)
		}
	}
	runs, ended := context.WithCancel(ctx)
	var reported sync.WaitGroup
	if m.confined == nil {
		reported.Go(func() { s.reportConfined(runs, m, pid, init) })
	}
	stop := s.observeFiles(ctx, pid)
	stopCalls := s.readCalls(pid)
	init.ended(0)
	ended()
	reported.Wait()
	stop()
	stopCalls()
}

// updateInfo changes what sandbox.json says.
func (s *Sandbox) updateInfo(change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	return s.writeInfo()
}

// writeInfo writes sandbox.json. s.mu must be held.
func (s *Sandbox) writeInfo() error {
	if s.removed {
		return nil
	}
	info := s.info
	info.Containers = make([]Container, len(s.members))
	for i, m := range s.members {
		info.Containers[i] = m.Container
		info.Containers[i].PID, info.Containers[i].Confined = m.pid, m.confined
	}
	return writeInfo(s.dir, info)
}

// refuseExecs takes the confinement away, without which openshell-init refuses
// to start anything.
func (s *Sandbox) refuseExecs() {
	_ = os.Remove(filepath.Join(s.confineDir(), confine.ConfigName))
}
