// SPDX-License-Identifier: Apache-2.0

// Package observe owns what is known of a container's file accesses while
// Landlock is off: it watches the container's mounts from outside, with
// fanotify(7), and reports each access once, by its path in the container.
//
// It sees opened files (to read, write or execute) and directories, and files
// and directories created, deleted and renamed, and the devices and FIFOs that are
// on file systems in memory or mounted by themselves. It does not see those on
// others, nor what Landlock never restricts (stat, readlink, access, chmod, a path that is only walked),
// nor what failed: an open of a file that does not exist has no event, and needs
// no rule, for it fails alike under Landlock.
//
// It does not decide what an access needs of a policy (package learn), nor when
// a container is watched (package sandbox).
package observe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a set of things done to a path.
type Kind uint16

// The kinds of access.
const (
	// Read is an open of a file. One whose mode is not known yet counts as
	// reading: fanotify tells only when a file is closed, or written to.
	Read Kind = 1 << iota
	ReadDir
	Write // by write(2) or a close of what was open for writing
	Execute
	Create
	Delete
	Rename // besides Delete of the old path, Create of the new
)

var kindNames = []string{"read", "read_dir", "write", "execute", "create", "delete", "rename"}

// String names the kinds, as in "read,execute".
func (k Kind) String() string {
	text := ""
	for i, name := range kindNames {
		if k&(1<<i) == 0 {
			continue
		}
		if text != "" {
			text += ","
		}
		text += name
	}
	return text
}

// Access is something that a container's process did to a path.
type Access struct {
	Time time.Time // when it was read of, some milliseconds late at most
	// Path is the container's, absolute and clean. It is the workload's choice:
	// it may hold any byte but NUL.
	Path string
	// Existing is the path, or the nearest directory above it, that the workload
	// did not make itself: a rule for anything below would have nothing to name
	// in the next run.
	Existing string
	Kinds    Kind
	PID      int    // as seen from outside
	Binary   string // the executable's path in the container; "" where its process has gone
}

// Options of an Observer. All functions are called from one goroutine.
type Options struct {
	// Report takes each access: the same path and kinds once, as far as bounded
	// memory allows.
	Report func(Access)
	// Lost is told once for each reason why accesses go or went unobserved.
	Lost func(reason string)
	// Hidden is a directory of the container whose files are no evidence, being
	// ours: the launcher's, which executes the workload.
	Hidden string
	// Trigger is a file in Hidden. When it is opened, Triggered is called, with
	// every mount that was there by then being watched.
	Trigger   string
	Triggered func()
}

// Observer watches one container.
type Observer struct {
	options   Options
	mounts    *mounts
	processes *processes
	opens     *opens
	entries   *entries // nil where the kernel cannot tell of them
	seen      *seen
	lost      map[string]struct{}
	buffer    []byte

	stop    int // eventfd(2)
	once    sync.Once
	stopped chan struct{}
}

// pause is how long events gather before they are looked at: neither the
// workload nor the observer then pays for a wake-up with each open, and the
// kernel merges what happens to one file meanwhile.
const pause = 4 * time.Millisecond

// Watch starts watching the container of a process, through whose mount
// namespace it looks. All mounts of the moment are watched when it returns, those
// made later as soon as they are noticed. The kernel's queues are bounded
// (fs.fanotify.max_queued_events); what runs over is reported as lost. It needs CAP_SYS_ADMIN and
// CAP_DAC_READ_SEARCH in the initial user namespace.
func Watch(pid int, options Options) (_ *Observer, err error) {
	o := &Observer{
		options: options, seen: newSeen(), lost: map[string]struct{}{},
		buffer: make([]byte, 256<<10), stop: -1, stopped: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			o.close()
			err = fmt.Errorf("observe files of process %d: %w", pid, err)
		}
	}()
	if o.mounts, err = openMounts(pid); err != nil {
		return nil, err
	}
	o.processes = newProcesses(o.mounts)
	if o.opens, err = newOpens(o); err != nil {
		return nil, err
	}
	if o.entries, err = newEntries(o); err != nil {
		o.lose("creations, deletions, renames, devices and FIFOs: " + err.Error())
	}
	if o.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := o.rescan(); err != nil {
		return nil, err
	}
	go o.loop()
	return o, nil
}

// Supported tells why accesses cannot be observed on this machine, or only in
// part: nil where all can.
func Supported() error {
	probe := &Observer{opens: &opens{}}
	opened, err := newOpens(probe)
	if err != nil {
		return err
	}
	defer opened.close()
	changed, err := newEntries(probe)
	if err != nil {
		return fmt.Errorf("creations, deletions and renames: %w", err)
	}
	changed.close()
	return nil
}

// Stop ends watching, once all that happened before has been reported. It may be
// called any number of times.
func (o *Observer) Stop() {
	o.once.Do(func() {
		_, _ = unix.Write(o.stop, []byte{7: 1}) // wakes the loop
	})
	<-o.stopped
}

func (o *Observer) close() {
	if o.entries != nil {
		o.entries.close()
	}
	if o.opens != nil {
		o.opens.close()
	}
	if o.mounts != nil {
		o.mounts.close()
	}
	if o.stop >= 0 {
		unix.Close(o.stop)
	}
}

// lose says once that something is or was not observed.
func (o *Observer) lose(reason string) {
	const maxReasons = 64
	if _, told := o.lost[reason]; told || len(o.lost) >= maxReasons {
		return
	}
	o.lost[reason] = struct{}{}
	if o.options.Lost != nil {
		o.options.Lost(reason)
	}
}

// rescan watches the mounts that are not watched yet. It looks again until there
// are none, for those are missed that are made between a look and the watching.
func (o *Observer) rescan() error {
	for {
		fresh, err := o.mounts.scan()
		if err != nil || len(fresh) == 0 {
			return err
		}
		if o.entries != nil {
			if err := o.entries.readOwn(); err != nil {
				return err
			}
		}
		for _, m := range fresh {
			o.mark(m)
		}
	}
}

func (o *Observer) mark(m *mount) {
	if err := o.opens.mark(m); err != nil {
		o.lose(fmt.Sprintf("files on the mount at %q: %v", m.point, err))
	}
	if o.entries == nil {
		return
	}
	if err := o.entries.mark(m); err != nil {
		o.lose(fmt.Sprintf("creations, deletions and renames on the mount at %q: %v", m.point, err))
	}
	_, shared := o.entries.own[m.dev]
	o.entries.specials.mark(m, !shared)
}

// loop is the one goroutine that reads. Its thread gets ahead of the workload's,
// so that the kernel's queue does not run over on a busy machine; it ends with the
// goroutine.
func (o *Observer) loop() {
	defer close(o.stopped)
	defer o.close()
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)

	fds := []unix.PollFd{
		{Fd: int32(o.stop), Events: unix.POLLIN},
		{Fd: int32(o.opens.fd), Events: unix.POLLIN},
		{Fd: -1, Events: unix.POLLIN},
		{Fd: int32(o.mounts.info.Fd()), Events: unix.POLLPRI}, // see proc_pid_mountinfo(5)
	}
	if o.entries != nil {
		fds[2].Fd = int32(o.entries.fd)
	}
	triggered := false
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			o.lose("everything from here on: " + os.NewSyscallError("poll", err).Error())
			return
		}
		if fds[3].Revents != 0 {
			if err := o.rescan(); err != nil {
				fds[3].Fd = -1 // the container's first process has gone
			}
		}
		triggered = o.drain() || triggered
		if fds[0].Revents != 0 {
			o.drain() // what waited for another event
			return
		}
		if o.options.Triggered == nil || triggered {
			// Not time.Sleep, which costs more than what it is meant to save: it
			// wakes another thread first.
			_, _ = unix.Poll(fds[:1], int(pause/time.Millisecond))
		}
	}
}

// drain takes in what is queued. It takes turns with the two queues: whether a
// file was there before is told by entries that are read after its open, and which
// program changed a directory by opens that are read after that change.
func (o *Observer) drain() (triggered bool) {
	var opened []Access
	for {
		n := o.readAll(o.opens.fd, "opened files", o.opens.take)
		if o.entries != nil {
			o.entries.settle()
			o.deliver(o.entries.found)
			clear(o.entries.found)
			o.entries.found = o.entries.found[:0]
		}
		o.deliver(opened)
		opened, o.opens.found = o.opens.found, nil
		if o.entries != nil {
			o.entries.made.turn()
			n += o.readAll(o.entries.fd, "creations, deletions and renames", o.entries.take)
		}
		if o.opens.trigger {
			o.opens.trigger, triggered = false, true
			_ = o.rescan()
			if o.entries != nil {
				o.entries.specials.remark()
			}
			o.options.Triggered()
		}
		if n == 0 {
			return triggered
		}
	}
}

// maxReads bounds how many buffers are taken in before they are looked at.
const maxReads = 64

func (o *Observer) readAll(fd int, what string, take func(event)) (total int) {
	for range maxReads {
		n := o.read(fd, what, take)
		if n == 0 {
			break
		}
		total += n
	}
	return total
}

// read reads one buffer of events. It returns the number of bytes.
func (o *Observer) read(fd int, what string, take func(event)) int {
	n, err := unix.Read(fd, o.buffer)
	for range maxReads {
		if !isOfEndedProcess(err) {
			break
		}
		n, err = unix.Read(fd, o.buffer)
	}
	if err != nil || n <= 0 {
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			// The queue goes on behind an event whose file cannot be opened.
			o.lose(fmt.Sprintf("some %s: %v", what, err))
		}
		return 0
	}
	for rest := o.buffer[:n]; len(rest) > 0; {
		var e event
		if e, rest, err = parseEvent(rest); err != nil {
			o.lose(fmt.Sprintf("some %s: %v", what, err))
			return n
		}
		if e.mask&unix.FAN_Q_OVERFLOW != 0 {
			o.lose(fmt.Sprintf("some %s: they came faster than they could be read", what))
			continue
		}
		take(e)
	}
	return n
}

// isOfEndedProcess tells the errors with which the kernel fails to open a file in
// /proc for an event, where the process that it is about has ended: of its memory,
// and of its mounts. No rule could name such a file, which no later process has.
func isOfEndedProcess(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// deliver reports what was found and not reported before.
func (o *Observer) deliver(found []Access) {
	now := time.Now()
	for _, a := range found {
		kinds := o.seen.add(a.Path, a.Kinds)
		if kinds == 0 {
			continue
		}
		a.Time, a.Kinds, a.Existing = now, kinds, a.Path
		if o.entries != nil {
			a.Existing = o.entries.made.existing(a.Path)
			if o.entries.made.full {
				o.lose("which of the files were there before: there are too many new ones")
			}
		}
		o.options.Report(a)
	}
}
