// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
	landlock "openshell.ai/openshell/internal/confine/denials"
	"openshell.ai/openshell/internal/confine/observe"
	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/policy"
)

// rootWait bounds how long a container's root is waited for, from when it has a
// first process on.
const rootWait = 30 * time.Second

// reasonFile is why an access would have been denied.
const reasonFile = "no path of filesystem_policy grants it"

// files observes one container's.
type files struct {
	sandbox *Sandbox
	pid     int // the container's first process
	root    *rootfs.Root

	mu      sync.Mutex
	workdir string
	rules   *confine.Ruleset // that granted was made from
	granted learn.FileRules
}

// observeFiles observes what the workload of a container does to files, for as
// long as the sandbox is permissive: Landlock is not applied then, and tells of
// what it refuses otherwise. The launcher
// waits for it before it starts the workload. The returned function ends it, when
// all that happened before has been taken in.
func (s *Sandbox) observeFiles(ctx context.Context, pid int) (stop func()) {
	if !s.mode.permissive() {
		return s.readDenials(pid)
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &files{sandbox: s, pid: pid}
	done := make(chan struct{})
	var o *observe.Observer
	go func() {
		defer close(done)
		err := errors.New("observing files failed: see the supervisor's log")
		crash.Contain("observing files", func() { o, err = f.watch(ctx) })
		if err != nil && ctx.Err() == nil {
			s.recordLost(err.Error())
		}
	}()
	return func() {
		cancel()
		<-done
		if o != nil {
			o.Stop()
		}
		f.root.Close()
	}
}

func (f *files) watch(ctx context.Context) (*observe.Observer, error) {
	mount, err := f.awaitRoot(ctx)
	if err != nil {
		return nil, err
	}
	// Where it cannot be observed, the workload starts all the same.
	letGo := func() {
		f.setWorkdir()
		name := filepath.Join(f.sandbox.confineDir(), confine.ObservedName(mount))
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			f.sandbox.recordError("openshell-init was not told that files are observed, so that the workload starts late", err)
		}
	}
	o, err := observe.Watch(f.pid, observe.Options{
		Report: f.take, Lost: f.sandbox.recordLost,
		Hidden: confine.Dir, Trigger: filepath.Join(confine.Dir, confine.ConfigName), Triggered: letGo,
	})
	if err != nil || f.launching() {
		letGo()
	}
	return o, err
}

// awaitRoot waits until the container's first process has its root file system,
// complete with the launcher. It returns the id of the mount of confine.Dir.
func (f *files) awaitRoot(ctx context.Context) (mount uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rootWait)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if mount, err = f.openRoot(); err == nil {
			return mount, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("everything, for the container has no root file system: %w", err)
		case <-time.After(wait):
		}
	}
}

func (f *files) openRoot() (mount uint64, err error) {
	root, err := rootfs.OfProcess(f.pid).Open()
	if err != nil {
		return 0, err
	}
	dir, err := root.Resolve(confine.Dir)
	if err == nil {
		_, err = root.Lstat(filepath.Join(dir, confine.InitName))
	}
	if err == nil {
		mount, err = root.MountID(dir)
	}
	if err != nil {
		root.Close()
		return 0, err
	}
	f.root = root
	return mount, nil
}

// launching reports whether the container's first process is the launcher already:
// then it may have read its file before that was observed.
func (f *files) launching() bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", f.pid))
	return err == nil && exe == filepath.Join(confine.Dir, confine.InitName)
}

// readDenials takes what Landlock refuses to a container's processes to the
// learner, where the node's kernel tells of it.
func (s *Sandbox) readDenials(pid int) (stop func()) {
	r, err := landlock.Open(membersOf(pid))
	if err != nil {
		if !errors.Is(err, landlock.ErrOff) {
			s.recordLost("what Landlock refused: " + err.Error())
		}
		return func() {}
	}
	return follow("what Landlock refused", r, func() error { return r.Read(s.takeDenial, s.recordLost) }, s.recordLost)
}

// membersOf tells the processes of a container, by one of them.
func membersOf(pid int) func(pid int) bool {
	ns, err := os.Readlink(mountNamespace(pid))
	return func(pid int) bool {
		other, otherErr := os.Readlink(mountNamespace(pid))
		return err == nil && otherErr == nil && other == ns
	}
}

// follow reads the kernel's log until it is stopped.
func follow(what string, r *landlock.Reader, read func() error, failed func(reason string)) (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		err := errors.New("reading failed: see the supervisor's log")
		crash.Contain(what, func() { err = read() })
		if err != nil {
			failed(what + ": " + err.Error())
		}
	})
	return func() {
		r.Close()
		wg.Wait()
	}
}

func mountNamespace(pid int) string { return fmt.Sprintf("/proc/%d/ns/mnt", pid) }

func (s *Sandbox) takeDenial(d landlock.Denial) {
	access := learn.FileAccess{Path: d.Path, Op: opOf(d.Kinds), Binary: d.Binary, Reason: reasonFile}
	if d.Kinds&(observe.Create|observe.Delete|observe.Rename) != 0 {
		access.Path, access.Existing = filepath.Join(d.Path, "*"), d.Path // the name is not told
	}
	s.learner.ObserveFile(access)
}

// setWorkdir reads the working directory, which the runtime sets before it
// executes the launcher.
func (f *files) setWorkdir() {
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", f.pid))
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.workdir == "" {
		f.workdir, f.rules = dir, nil
	}
}

// take takes an access to the learner. After permissive mode it is no evidence:
// Landlock cannot be applied to a process that runs already.
func (f *files) take(a observe.Access) {
	if !f.sandbox.mode.permissive() {
		return
	}
	if a.Kinds&observe.Write != 0 && path.Base(a.Path) == "mem" && policy.ProcessMemory(a.Path) {
		f.sandbox.recordMemory(a)
	}
	access := learn.FileAccess{
		Time: a.Time, Path: a.Path, Op: opOf(a.Kinds), Binary: a.Binary, Permissive: true, Reason: reasonFile,
	}
	if a.Existing != a.Path {
		access.Existing = a.Existing
	}
	if !f.allows(access) {
		f.sandbox.learner.ObserveFile(access)
	}
}

func opOf(k observe.Kind) (op learn.FileOp) {
	for _, is := range []struct {
		kind observe.Kind
		op   learn.FileOp
	}{
		{observe.Read, learn.OpRead}, {observe.ReadDir, learn.OpReadDir}, {observe.Write, learn.OpWrite},
		{observe.Execute, learn.OpExecute}, {observe.Create, learn.OpCreate}, {observe.Delete, learn.OpDelete},
		{observe.Rename, learn.OpRename},
	} {
		if k&is.kind != 0 {
			op |= is.op
		}
	}
	return op
}

// allows reports whether the policy in force, or what is added to every policy,
// allows an access.
func (f *files) allows(a learn.FileAccess) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rules := f.sandbox.rules.Load().files; rules != f.rules {
		f.rules = rules
		f.granted = learn.FileRules{ReadOnly: f.resolve(rules.ReadOnly), ReadWrite: f.resolve(rules.ReadWrite)}
		if rules.IncludeWorkdir && f.workdir != "" && f.workdir != "/" {
			f.granted.ReadWrite = append(f.granted.ReadWrite, f.workdir)
		}
	}
	return f.granted.Allows(a)
}

// resolve returns what paths lead to in the container, without symbolic links, as
// the kernel names files. A path that is not there grants nothing.
func (f *files) resolve(paths []string) (resolved []string) {
	for _, p := range paths {
		at, err := f.root.Resolve(p)
		if err != nil {
			continue
		}
		if _, err := f.root.Lstat(at); err == nil {
			resolved = append(resolved, at)
		}
	}
	return resolved
}

// recordMemory records what Landlock refuses where it is applied: a program that
// writes to a process's memory can have that act for it.
func (s *Sandbox) recordMemory(a observe.Access) {
	s.record(audit.Event{Class: audit.ClassFinding, Activity: "CREATE", Severity: audit.SeverityHigh, Message: fmt.Sprintf(
		"%s wrote to the memory of a process, %s: which program did what in this run is not certain from here on",
		audit.Escape(a.Binary, maxNamed), audit.Escape(a.Path, maxNamed))})
}

// maxNamed bounds a path in a message, in bytes.
const maxNamed = 512

// recordLost records that some of what the workload did to files is not known.
func (s *Sandbox) recordLost(reason string) {
	s.learner.Lost()
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "UNOBSERVED", Severity: audit.SeverityMedium,
		Message: "proposals for files are incomplete, since these are not observed: " + reason})
}
