// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/netns"
)

// SuperviseCommand is the argument by which the program runs Supervise.
const SuperviseCommand = "supervise"

// outcome is a supervisor's one answer to its parent.
type outcome struct {
	Ready *Ready `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// Starter makes a new sandbox: a Spawner does in a process of its own, a caller
// that lives long enough by Start.
type Starter func(r Request, c *config.Config) (Ready, error)

// Open returns the sandbox for a container: the running one of its outer
// namespace, which it then joins, or a new one.
func Open(ctx context.Context, c *config.Config, r Request, start Starter) (Ready, error) {
	_ = Sweep(c.RunDir) // what is left of another sandbox is in nobody's way
	if err := vacate(ctx, c.RunDir, r); err != nil {
		return Ready{}, err
	}
	outer, err := r.Outer.identify()
	if err != nil {
		return Ready{}, err
	}
	if r.Outer.Kind != OuterPath {
		return start(r, c)
	}
	return share(ctx, c.RunDir, outer,
		func(info Info) (Ready, error) { return join(ctx, c, info, r) },
		func() (Ready, error) { return start(r, c) }, r.Outer.Path)
}

// vacate waits for the sandbox that an earlier container of the same id still
// has: its supervisor writes down what was learned after the container's end.
func vacate(ctx context.Context, runDir string, r Request) error {
	dir := filepath.Join(sandboxesDir(runDir), r.ID)
	info, there := look(dir)
	switch {
	case !there:
		return nil
	case info.populated() || r.Container.running():
		return fmt.Errorf("container with id %s %w", r.Container.ID, ErrExists)
	case info.Broken != nil && !listens(dir):
		return abandon(runDir, r.ID, func(Container) bool { return true })
	case info.State() == Dead:
		return abandon(runDir, r.ID, func(Container) bool { return false })
	}
	if err := await(ctx, runDir, info,
		func(now Info) bool { return len(now.Containers) > 0 && !now.has(r.Container.Root, r.Container.ID) }); err != nil {
		return fmt.Errorf("sandbox %s, which an earlier container of the same id has: %w", r.ID, err)
	}
	return nil
}

// sharing finds the sandbox of a namespace that an engine names: the running
// one whose outer namespace it is, or the one whose inner namespace it is. The
// latter is what /proc/PID/ns/net of a container leads to, by which CRI and
// docker let containers join others; then it is found even with its supervisor
// dead, for there is no other that could be right.
func sharing(runDir string, named netns.ID) (Info, bool, error) {
	all, err := List(runDir)
	if err != nil {
		return Info{}, false, err
	}
	for _, info := range all {
		if info.InnerID == named || info.Shared && info.Outer == named && info.State() != Dead {
			return info, true, nil
		}
	}
	return Info{}, false, nil
}

// join adds a container to a running sandbox, whose annotations rule: one of
// its containers may repeat them, not change them.
func join(ctx context.Context, c *config.Config, info Info, r Request) (Ready, error) {
	if r.PolicyNamed && r.Policy != info.Policy {
		return Ready{}, fmt.Errorf("annotation openshell.ai/policy: %q, but the sandbox that this container joins has %q",
			r.Policy, info.Policy)
	}
	if r.Permissive && info.TTL == "" {
		return Ready{}, errors.New("annotation openshell.ai/permissive: true, but the sandbox that this container joins is enforcing")
	}
	if err := info.contradicted(r.Said); err != nil {
		return Ready{}, err
	}
	var ready Ready
	err := call(ctx, c.RunDir, info, "attach", joinRequest{r.Container, r.Stores, r.Creator, r.DNS}, &ready)
	return ready, err
}

// contradicted tells where a container's own annotations want another mode than
// the sandbox's were.
func (i Info) contradicted(said map[string]string) error {
	differs := func(key, has string) error {
		return fmt.Errorf("annotation %s: %s, but the sandbox that this container joins has %s", key, said[key], has)
	}
	if said[annotations.KeyPermissive] == "false" && i.TTL != "" {
		return differs(annotations.KeyPermissive, "true")
	}
	if v, ok := said[annotations.KeyPermissiveTTL]; ok {
		if ttl, err := time.ParseDuration(v); err != nil || ttl.String() != i.TTL {
			return differs(annotations.KeyPermissiveTTL, i.TTL)
		}
	}
	if v, ok := said[annotations.KeyPermissiveOnExpiry]; ok && v != i.OnExpiry {
		return differs(annotations.KeyPermissiveOnExpiry, i.OnExpiry)
	}
	return nil
}

// startTimeout bounds a sandbox's start.
const startTimeout = 30 * time.Second

// Spawner starts a sandbox in a detached supervisor. The supervisor's process
// is started beforehand, so that it gets ready while its parent still reads
// what the sandbox is to be.
type Spawner struct {
	cmd     *exec.Cmd
	request *os.File // to write to
	answer  *os.File // to read from
}

// NewSpawner starts the process. It has to be used, or closed.
func NewSpawner() (_ *Spawner, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start supervisor: %w", err)
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	requestR, requestW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer requestR.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		requestW.Close()
		return nil, err
	}
	defer answerW.Close()

	// Nothing of the engine's may stay open in the supervisor: a pipe that it
	// held would keep the engine waiting for the container's output.
	cmd := exec.Command(self, SuperviseCommand)
	cmd.Dir = "/"
	cmd.Stdin = requestR
	cmd.ExtraFiles = []*os.File{answerW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		requestW.Close()
		answerR.Close()
		return nil, err
	}
	return &Spawner{cmd: cmd, request: requestW, answer: answerR}, nil
}

// Start is a Starter: it hands the request over and waits until the sandbox is
// ready. The supervisor reads the configuration itself.
func (s *Spawner) Start(r Request, _ *config.Config) (_ Ready, err error) {
	defer func() {
		if err == nil {
			s.release()
		}
	}()
	input, err := json.Marshal(r)
	if err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	deadline := time.Now().Add(startTimeout)
	if err := errors.Join(s.request.SetDeadline(deadline), s.answer.SetDeadline(deadline)); err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	// A supervisor that does not read says why in its answer, or not at all.
	_, _ = s.request.Write(input)
	s.request.Close()

	var o outcome
	if err := json.NewDecoder(s.answer).Decode(&o); err != nil {
		return Ready{}, fmt.Errorf("the supervisor ended before its sandbox was ready: %w", err)
	}
	if o.Ready == nil {
		return Ready{}, errors.New(o.Error)
	}
	return *o.Ready, nil
}

// release lets the supervisor live on by itself.
func (s *Spawner) release() {
	_ = s.cmd.Process.Release()
	s.cmd = nil
	s.answer.Close()
}

// Close ends a supervisor that has no sandbox. After a successful Start it does
// nothing.
func (s *Spawner) Close() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.request.Close()
	s.answer.Close()
	s.cmd = nil
}

// answerFD is where a supervisor answers: the first of exec.Cmd's ExtraFiles.
const answerFD = 3

// Supervise runs one sandbox until its containers are gone. The request comes
// on standard input, the answer goes to descriptor 3.
func Supervise(c *config.Config) error {
	signals := notified()
	CaptureLog()
	answer := os.NewFile(answerFD, "answer")
	var r Request
	err := json.NewDecoder(os.Stdin).Decode(&r)
	if errors.Is(err, io.EOF) {
		return nil // there is nothing to supervise after all
	}
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := closeInherited(); err != nil {
		return fmt.Errorf("let go of the engine's descriptors: %w", err)
	}
	unix.Umask(0o022) // the engine's may keep a workload from its own files
	link, err := newKeeperLink()
	if err != nil {
		slog.Warn("nobody starts the supervisor again if it dies", "error", err)
	}
	s, err := startBy(systemClock(), c, r, link)
	o := outcome{}
	if err != nil {
		o.Error = err.Error()
	} else {
		ready := s.Ready()
		o.Ready = &ready
	}
	if werr := json.NewEncoder(answer).Encode(o); werr != nil && s != nil {
		s.Stop() // the creator is gone
	}
	answer.Close()
	if err != nil {
		return err
	}
	if s.begin() {
		go func() {
			defer s.wg.Done()
			s.account()
			s.keep()
		}()
	}
	return s.runUntilDone(signals)
}

// notified are the signals that ask a supervisor to end.
func notified() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	return signals
}

// runUntilDone is a supervisor's life.
func (s *Sandbox) runUntilDone(signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			s.signalled(sig)
		case <-s.Done():
			return nil
		}
	}
}

// signalled is for a signal that asks the supervisor to end. Its containers
// would go on without a network, and without what makes exec safe: so it ends
// with them, and not before.
func (s *Sandbox) signalled(sig os.Signal) {
	s.mu.Lock()
	ending, containers := s.ending, len(s.members)
	s.mu.Unlock()
	if ending {
		slog.Warn("signal: what could not be written is given up", "signal", sig.String())
		s.learner.GiveUp()
		return
	}
	if containers == 0 {
		go s.Stop()
		return
	}
	slog.Warn("signal ignored: the supervisor ends with its containers, which go on", "signal", sig.String(),
		"containers", containers)
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "SIGNAL", Severity: audit.SeverityMedium,
		Message: fmt.Sprintf("the supervisor ignores the signal %q: it ends with its containers", sig)})
}

// closeInherited lets go of everything that the engine had open: a pipe that
// the supervisor held would keep the engine waiting for its end. Standard output
// and error are /dev/null. Standard input is not left free: what took it, such
// as a namespace, would have the number that libraries read as "none". What this
// program opened itself is marked close-on-exec.
func closeInherited() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), int(os.Stdin.Fd()), 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= answerFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}
