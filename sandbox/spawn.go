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

// Open returns the sandbox for a container: the running one of its outer
// namespace, which it then joins, or a new one in a detached supervisor.
func Open(ctx context.Context, c *config.Config, r Request) (Ready, error) {
	if err := Sweep(c.RunDir); err != nil {
		return Ready{}, err
	}
	if err := vacate(ctx, c.RunDir, r); err != nil {
		return Ready{}, err
	}
	if r.Outer.Kind != OuterPath {
		return spawn(r)
	}
	// Containers of a pod are created at the same time; only one of them may
	// find that there is no sandbox yet.
	unlock, err := lockRun(c.RunDir)
	if err != nil {
		return Ready{}, err
	}
	defer unlock()
	info, found, err := sharing(c.RunDir, r.Outer.Path)
	if err != nil {
		return Ready{}, err
	}
	if !found {
		return spawn(r)
	}
	return join(ctx, c, info, r)
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
func sharing(runDir, path string) (Info, bool, error) {
	outer, err := netns.Open(path)
	if err != nil {
		return Info{}, false, err
	}
	defer outer.Close()
	all, err := List(runDir)
	if err != nil {
		return Info{}, false, err
	}
	for _, info := range all {
		if info.Shared && info.Outer == outer.ID() && info.Alive() {
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

// spawn starts a detached supervisor and waits until its sandbox is ready.
func spawn(r Request) (Ready, error) {
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
	defer func() { _ = cmd.Process.Release() }()
	if _, err := requestW.Write(input); err != nil {
		return Ready{}, fmt.Errorf("start supervisor: %w", err)
	}
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

// Supervise runs one sandbox until its containers are gone. The request comes
// on standard input, the answer goes to descriptor 3.
func Supervise(c *config.Config) error {
	answer := os.NewFile(3, "answer")
	var r Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	closeInherited()
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
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	select {
	case <-signals:
		s.Stop()
	case <-s.Done():
	}
	return nil
}

// closeInherited lets go of standard input; the other two are /dev/null.
func closeInherited() { _ = os.Stdin.Close() }

// Close tears down what a deleted container leaves: it takes the container out
// of its sandbox, waits for the sandbox's end if it was the last, and clears up
// after a supervisor that died.
func Close(ctx context.Context, c *config.Config, root, id string) error {
	all, err := List(c.RunDir)
	if err != nil {
		return err
	}
	for _, info := range all {
		for _, container := range info.Containers {
			if container.Root != root || container.ID != id {
				continue
			}
			if !info.Alive() {
				return remove(c.RunDir, info)
			}
			// The sandbox may end by itself meanwhile.
			_ = call(ctx, c.RunDir, info.ID, "detach", leaveRequest{root, id}, nil)
			return awaitEnd(ctx, c.RunDir, info, root, id)
		}
	}
	return nil
}

// awaitEnd waits until the sandbox no longer has the container.
func awaitEnd(ctx context.Context, runDir string, info Info, root, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	dir := filepath.Join(sandboxesDir(runDir), info.ID)
	for {
		now, err := readInfo(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && len(now.Containers) > 0 && !now.has(root, id) {
			return nil
		}
		if !info.Alive() {
			return remove(runDir, info)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sandbox %s does not end", info.ID)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (i Info) has(root, id string) bool {
	for _, c := range i.Containers {
		if c.Root == root && c.ID == id {
			return true
		}
	}
	return false
}

// Sweep removes what supervisors that were killed left behind, once their
// containers are gone too.
func Sweep(runDir string) error {
	all, err := List(runDir)
	if err != nil {
		return err
	}
	for _, info := range all {
		if !info.Alive() && !info.populated() {
			if err := remove(runDir, info); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i Info) populated() bool {
	for _, c := range i.Containers {
		if _, _, err := c.init(); err == nil {
			return true
		}
	}
	return false
}

func remove(runDir string, info Info) error {
	for _, c := range info.Containers {
		c.removeStubs()
	}
	if err := os.RemoveAll(filepath.Join(sandboxesDir(runDir), info.ID)); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	return nil
}

// lockRun locks the run directory against other creators.
func lockRun(runDir string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(runDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	return func() { f.Close() }, nil
}
