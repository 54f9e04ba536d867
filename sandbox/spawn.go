package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/config"
	"openshell.ai/openshell/netns"
)

// SuperviseCommand is the argument by which the program runs Supervise.
const SuperviseCommand = "supervise"

// outcome is a supervisor's one answer to its parent.
type outcome struct {
	Ready *Ready `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// Starter makes a new sandbox: Spawn does in a process of its own, a caller
// that lives long enough by Start.
type Starter func(r Request, c *config.Config) (Ready, error)

// Open returns the sandbox for a container: the running one of its outer
// namespace, which it then joins, or a new one.
func Open(ctx context.Context, c *config.Config, r Request, start Starter) (Ready, error) {
	if err := Sweep(c.RunDir); err != nil {
		return Ready{}, err
	}
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
	// Containers of a pod are created at the same time; only one of them may
	// find that there is no sandbox yet.
	unlock, err := lockRun(c.RunDir)
	if err != nil {
		return Ready{}, err
	}
	defer unlock()
	for {
		info, found, err := sharing(c.RunDir, outer)
		if err != nil {
			return Ready{}, err
		}
		if !found {
			return start(r, c)
		}
		ready, err := join(ctx, c, info, r)
		if !errors.Is(err, errEnding) && !errors.Is(err, errNoAnswer) {
			return ready, err
		}
		// Its last container went while this one came.
		if err := await(ctx, c.RunDir, info, func(Info) bool { return false }); err != nil {
			return Ready{}, err
		}
	}
}

// vacate waits for the sandbox that an earlier container of the same id still
// has: its supervisor writes down what was learned after the container's end.
func vacate(ctx context.Context, runDir string, r Request) error {
	info, err := readInfo(filepath.Join(sandboxesDir(runDir), r.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.populated() {
		return fmt.Errorf("container with id %s exists already", r.Container.ID)
	}
	return awaitEnd(ctx, runDir, info, r.Container.Root, r.Container.ID)
}

// sharing finds the running sandbox of an outer namespace.
func sharing(runDir string, outer netns.ID) (Info, bool, error) {
	all, err := List(runDir)
	if err != nil {
		return Info{}, false, err
	}
	for _, info := range all {
		if info.Shared && info.Outer == outer && info.Alive() {
			return info, true, nil
		}
	}
	return Info{}, false, nil
}

// join adds a container to a running sandbox, whose annotations rule: one of
// its containers may repeat them, not change them.
func join(ctx context.Context, c *config.Config, info Info, r Request) (Ready, error) {
	if r.PolicyNamed && r.Policy != info.Policy {
		return Ready{}, fmt.Errorf("annotation openshell.ai/policy: %q, but the sandbox that this container joins has %q", r.Policy, info.Policy)
	}
	if r.Permissive && info.TTL == "" {
		return Ready{}, errors.New("annotation openshell.ai/permissive: true, but the sandbox that this container joins is enforcing")
	}
	var ready Ready
	err := call(ctx, c.RunDir, info.ID, "attach", joinRequest{r.Container, r.Creator}, &ready)
	return ready, err
}

// startTimeout bounds a sandbox's start.
const startTimeout = 30 * time.Second

// Spawn starts a detached supervisor and waits until its sandbox is ready. The
// supervisor reads the configuration itself.
func Spawn(r Request, _ *config.Config) (_ Ready, err error) {
	self, err := os.Executable()
	if err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	input, err := json.Marshal(r)
	if err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	requestR, requestW, err := os.Pipe()
	if err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer requestW.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		requestR.Close()
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer answerR.Close()

	// Nothing of the engine's may stay open in the supervisor: a pipe that it
	// held would keep the engine waiting for the container's output.
	cmd := exec.Command(self, SuperviseCommand)
	cmd.Dir = "/"
	cmd.Stdin = requestR
	cmd.ExtraFiles = []*os.File{answerW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	requestR.Close()
	answerW.Close()
	if err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return
		}
		_ = cmd.Process.Release()
	}()
	deadline := time.Now().Add(startTimeout)
	if err := errors.Join(requestW.SetDeadline(deadline), answerR.SetDeadline(deadline)); err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
	// A supervisor that does not read says why in its answer, or not at all.
	_, _ = requestW.Write(input)
	requestW.Close()

	var o outcome
	if err := json.NewDecoder(answerR).Decode(&o); err != nil {
		return Ready{}, fmt.Errorf("the supervisor ended before its sandbox was ready: %w", err)
	}
	if o.Ready == nil {
		return Ready{}, errors.New(o.Error)
	}
	return *o.Ready, nil
}

// answerFD is where a supervisor answers: the first of exec.Cmd's ExtraFiles.
const answerFD = 3

// Supervise runs one sandbox until its containers are gone. The request comes
// on standard input, the answer goes to descriptor 3.
func Supervise(c *config.Config) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	answer := os.NewFile(answerFD, "answer")
	var r Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := closeInherited(); err != nil {
		return fmt.Errorf("let go of the engine's descriptors: %w", err)
	}
	unix.Umask(0o022) // the engine's may keep a workload from its own files
	s, err := Start(c, r)
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
	select {
	case <-signals:
		s.Stop()
	case <-s.Done():
	}
	return nil
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
