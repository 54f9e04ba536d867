// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/keeper"
	"openshell.ai/openshell/internal/libexec"
)

// closedFile says why a sandbox's supervisor is not started again.
const closedFile = "closed"

// keeperLink is a supervisor's side of its keeper, see package keeper.
type keeperLink struct {
	journal *journal
	program *os.File // this executable, whatever becomes of its path
	held    []*os.File
	ready   chan struct{} // closed: the rest is complete
	pipe    *os.File      // to the keeper that there is; s.mu guards it
}

// holdNetwork says what a supervisor that takes over is to be given, in the order of
// begun.Held. It comes before anything may be started in the sandbox.
func (s *Sandbox) holdNetwork(l *listeners) error {
	if s.keeper == nil {
		return nil
	}
	names, files, err := s.heldFiles(l)
	if err != nil {
		return err
	}
	b, err := s.begun(names)
	if err == nil {
		err = s.keeper.journal.add(entry{Begun: b})
	}
	if err != nil {
		return err
	}
	s.keeper.held = files
	close(s.keeper.ready)
	return nil
}

// heldFiles returns what is to stay open when the supervisor dies.
func (s *Sandbox) heldFiles(l *listeners) (names []string, files []*os.File, err error) {
	hold := func(name string, f *os.File) { names, files = append(names, name), append(files, f) }
	hold(heldJournal, s.keeper.journal.file)
	hold(heldInner, s.inner.File())
	if outer := s.foreignOuter(); outer != nil {
		hold(heldOuter, outer.File())
	}
	if s.unrouted != nil {
		hold(heldNowhere, s.unrouted.File())
	}
	var errs []error
	socket := func(name string, c syscall.Conn) {
		f, err := duplicate(c)
		errs = append(errs, err)
		hold(name, f)
	}
	for _, c := range l.transparent {
		socket(heldTransparent, c)
	}
	for _, c := range l.resolvers {
		socket(heldResolver, c)
	}
	for _, c := range l.packets {
		socket(heldPackets, c)
	}
	for _, c := range l.datagrams {
		socket(heldDatagrams, c)
	}
	return names, files, errors.Join(errs...)
}

// What the keeper holds.
const (
	heldJournal     = "journal"
	heldInner       = "inner"
	heldOuter       = "outer"
	heldNowhere     = "nowhere"
	heldTransparent = "transparent"
	heldResolver    = "resolver"
	heldPackets     = "packets"
	heldDatagrams   = "datagrams"
)

// duplicate returns a socket's descriptor for another process. Unlike that of the
// socket's own File method, handing it over does not make the socket block.
func duplicate(c syscall.Conn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	dup, dupErr := -1, error(nil)
	if err := raw.Control(func(fd uintptr) { dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	return os.NewFile(uintptr(dup), "socket"), nil
}

// begun is what the next supervisor has to know of this one's.
func (s *Sandbox) begun(held []string) (*begun, error) {
	secret, err := s.authority.Secret()
	if err != nil {
		return nil, err
	}
	b := &begun{
		Version: journalVersion, Request: s.request, Started: s.info.Started, Authority: secret, Run: s.thisRun,
		Native: s.native, Held: held,
	}
	if s.mode.permissive() {
		now, err := monotonic()
		if err != nil {
			return nil, err
		}
		s.mode.mu.Lock()
		b.Ends = now + int64(s.mode.left())
		s.mode.mu.Unlock()
	}
	if s.request.Owner != 0 {
		if b.Owner, err = refTo(s.request.Owner); err != nil {
			return nil, fmt.Errorf("watch the sandbox's owner: %w", err)
		}
	}
	return b, nil
}

// keep starts a keeper once the network is complete, and another where that dies,
// for as long as the sandbox lasts. A sandbox that cannot have one goes on without.
func (s *Sandbox) keep() {
	if s.keeper == nil {
		return
	}
	select {
	case <-s.keeper.ready:
	case <-s.ctx.Done():
		return
	}
	var started []time.Time
	for {
		p, err := s.startKeeper()
		if err != nil && !errors.Is(err, errEnding) {
			slog.Warn("nobody starts the supervisor again if it dies", "error", err)
		}
		if err != nil || !s.keeperDies(p) {
			return
		}
		now := time.Now()
		if started = append(started, now); len(started) > 2 && now.Sub(started[len(started)-3]) < time.Minute {
			slog.Error("nobody starts the supervisor again if it dies", "error", "its keepers die")
			return
		}
	}
}

// keeperDies waits for the keeper's end. It is false where the sandbox's comes first.
func (s *Sandbox) keeperDies(p *process) bool {
	defer p.close()
	defer context.AfterFunc(s.ctx, p.close)()
	if !p.ended(0) || s.ctx.Err() != nil {
		return false
	}
	slog.Error("the keeper has died: another is started", "sandbox", s.request.ID)
	return true
}

func (s *Sandbox) startKeeper() (*process, error) {
	path, err := libexec.Find(keeper.Name)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	arguments := keeper.Arguments{
		Log:    filepath.Join(s.store.SandboxDir(s.request.ID), LogFile),
		Closed: filepath.Join(s.dir, closedFile),
		Held:   len(s.keeper.held),
	}
	cmd := exec.Command(path, arguments.List()...)
	cmd.Dir = "/"
	cmd.ExtraFiles = append([]*os.File{r, s.keeper.program}, s.keeper.held...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	process, err := openProcess(cmd.Process.Pid)
	if err == nil {
		if err = s.noteKeeper(cmd.Process.Pid, w); err != nil {
			process.close()
		}
	}
	if err != nil {
		w.Close()
		_ = cmd.Process.Kill()
	}
	go func() { _ = cmd.Wait() }()
	return process, err
}

// noteKeeper makes a keeper the sandbox's. A sandbox that is ending needs none.
func (s *Sandbox) noteKeeper(pid int, pipe *os.File) error {
	process, err := refTo(pid)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errEnding
	}
	s.keeper.pipe = pipe
	s.info.Keeper = process
	return s.writeInfo()
}

// dismissKeeper ends the keeper: from here on nobody takes over.
func (s *Sandbox) dismissKeeper() {
	if s.keeper == nil {
		return
	}
	s.mu.Lock()
	pipe, it := s.keeper.pipe, s.info.Keeper
	s.keeper.pipe = nil
	s.mu.Unlock()
	if pipe != nil {
		_, _ = pipe.WriteString(keeper.Goodbye)
		pipe.Close()
		it.awaitEnd(lockWait)
	}
	for _, f := range s.keeper.held {
		if f != s.inner.File() && (s.outer == nil || f != s.outer.File()) && (s.unrouted == nil || f != s.unrouted.File()) {
			f.Close()
		}
	}
	s.keeper.program.Close()
}

// newKeeperLink prepares for a keeper.
func newKeeperLink() (*keeperLink, error) {
	m, err := newJournal()
	if err != nil {
		return nil, err
	}
	program, err := os.OpenFile("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return &keeperLink{journal: m, program: program, ready: make(chan struct{})}, nil
}

// remember writes down what a supervisor that takes over has to know. Where that
// fails it will not be the same, so that there must not be one.
func (s *Sandbox) remember(e entry) error {
	if s.keeper == nil {
		return nil
	}
	return s.keeper.journal.add(e)
}

// takenListeners are those that the keeper held.
func takenListeners(files map[string][]*os.File) (_ *listeners, err error) {
	l := new(listeners)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for name, list := range map[string]*[]*net.TCPListener{heldTransparent: &l.transparent, heldResolver: &l.resolvers} {
		for _, f := range files[name] {
			taken, err := net.FileListener(f)
			if err != nil {
				return nil, fmt.Errorf("take over a listener: %w", err)
			}
			tcp, ok := taken.(*net.TCPListener)
			if !ok {
				return nil, errors.New("take over a listener: it is not one of TCP")
			}
			*list = append(*list, tcp)
		}
	}
	for name, list := range map[string]*[]*net.UDPConn{heldPackets: &l.packets, heldDatagrams: &l.datagrams} {
		for _, f := range files[name] {
			taken, err := net.FilePacketConn(f)
			if err != nil {
				return nil, fmt.Errorf("take over a socket: %w", err)
			}
			udp, ok := taken.(*net.UDPConn)
			if !ok {
				return nil, errors.New("take over a socket: it is not one of UDP")
			}
			*list = append(*list, udp)
		}
	}
	return l, nil
}
