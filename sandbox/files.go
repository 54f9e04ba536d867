package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/audit"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/confine/observe"
)

// rootWait bounds how long a container's root is waited for, from when it has a
// first process on.
const rootWait = 30 * time.Second

// observeFiles observes what the workload of a container does to files, for as
// long as the sandbox is permissive: Landlock is not applied then. The launcher
// waits for it before it starts the workload. The returned function ends it, when
// all that happened before has been taken in.
func (s *Sandbox) observeFiles(ctx context.Context, pid int) (stop func()) {
	if !s.mode.permissive() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var o *observe.Observer
	go func() {
		defer close(done)
		var err error
		if o, err = s.watchFiles(ctx, pid); err != nil && ctx.Err() == nil {
			s.recordLost(err.Error())
		}
	}()
	return func() {
		cancel()
		<-done
		if o != nil {
			o.Stop()
		}
	}
}

func (s *Sandbox) watchFiles(ctx context.Context, pid int) (*observe.Observer, error) {
	mount, err := awaitRoot(ctx, pid)
	if err != nil {
		return nil, err
	}
	// Where it cannot be observed, the workload starts all the same.
	letGo := func() {
		file := filepath.Join(s.confineDir(), confine.ObservedName(mount))
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			s.recordError("openshell-init was not told that files are observed, so that the workload starts late", err)
		}
	}
	o, err := observe.Watch(pid, observe.Options{
		Report: s.observeFile, Lost: s.recordLost,
		Hidden: confine.Dir, Trigger: filepath.Join(confine.Dir, confine.ConfigName), Triggered: letGo,
	})
	if err != nil || launching(pid) {
		letGo()
	}
	return o, err
}

// awaitRoot waits until a container's first process has its root file system,
// complete with the launcher. It returns the id of the mount of confine.Dir.
func awaitRoot(ctx context.Context, pid int) (mount uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rootWait)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if mount, err = launcherMount(pid); err == nil {
			return mount, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the container has no root file system yet: %w", err)
		case <-time.After(wait):
		}
	}
}

func launcherMount(pid int) (uint64, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, filepath.Join(confine.Dir, confine.InitName),
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return 0, err
	}
	unix.Close(fd)
	fd, err = unix.Openat2(root, confine.Dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return confine.MountID(fd)
}

// launching tells whether a process is the launcher already: then it may have
// read its file before that was observed.
func launching(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && exe == filepath.Join(confine.Dir, confine.InitName)
}

// observeFile takes an access to the learner. After permissive mode it is no
// evidence: Landlock cannot be applied to a process that runs already.
func (s *Sandbox) observeFile(a observe.Access) {
	if s.mode.permissive() {
		s.learnFile(a)
	}
}

// recordLost records that some of what the workload did to files is not known.
func (s *Sandbox) recordLost(reason string) {
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "UNOBSERVED", Severity: audit.SeverityMedium,
		Message: "proposals for files are incomplete: not observed: " + reason})
}

// learnFile is where the learner takes accesses in.
func (s *Sandbox) learnFile(a observe.Access) {
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "FILE", Message: fmt.Sprintf("%s %q existing %q by %q", a.Kinds, a.Path, a.Existing, a.Binary)})
}
