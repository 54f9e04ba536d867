// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// flushInterval is the longest an event waits before it is written.
	flushInterval = 100 * time.Millisecond
	// eagerPending is how much waits, in bytes, before it is written at once, and maxPending
	// how much may wait at all. What a disk is too slow for is dropped, and counted.
	eagerPending = 1 << 20
	maxPending   = 8 << 20
	// DefaultMaxBytes is the size at which a file is rotated.
	DefaultMaxBytes = 16 << 20
)

// Options of a Logger.
type Options struct {
	OCSF     bool  // write events.jsonl besides openshell.log
	MaxBytes int64 // a file of this size is rotated to .1; 0: DefaultMaxBytes
	// Lost is told of events that could not be written, and why; nil: nobody is.
	Lost func(events int, err error)
}

// Logger writes one sandbox's events. Its methods may be called at the same time.
type Logger struct {
	dir  string
	lost func(events int, err error)
	wake chan struct{}
	full chan struct{} // there is enough to be written at once
	done chan struct{}
	idle sync.WaitGroup

	mu      sync.Mutex // guards what waits to be written
	pending []Event
	size    int
	dropped int // since the last batch
	closed  bool

	io      sync.Mutex // guards the files, and orders batches; taken before mu
	people  *file      // openshell.log
	ocsf    *file      // events.jsonl, nil: not wanted
	failing bool       // the last write failed and that was reported
}

// Open prepares a logger for the directory dir. The directory (mode 0700) and the files
// (0600) are created when there is something to write, away from the caller, so that a
// container's start does not wait for them.
func Open(dir string, o Options) (*Logger, error) {
	if dir == "" || !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("audit directory %q: must be an absolute path", dir)
	}
	limit := o.MaxBytes
	if limit == 0 {
		limit = DefaultMaxBytes
	}
	if limit < 0 {
		return nil, fmt.Errorf("audit size limit %d: must be positive", limit)
	}
	l := &Logger{
		dir:    dir,
		lost:   o.Lost,
		wake:   make(chan struct{}, 1),
		full:   make(chan struct{}, 1),
		done:   make(chan struct{}),
		people: &file{path: filepath.Join(dir, "openshell.log"), limit: limit},
	}
	if o.OCSF {
		l.ocsf = &file{path: filepath.Join(dir, "events.jsonl"), limit: limit}
	}
	l.idle.Go(l.run)
	return l, nil
}

// Record takes down an event; it reaches the file within 250 ms. It does not wait for a
// disk: where events come faster than they can be written, some are dropped, and the log
// says how many. After Close it does nothing.
func (l *Logger) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	if l.size > maxPending {
		l.dropped++
		l.mu.Unlock()
		return
	}
	l.pending = append(l.pending, e)
	l.size += weight(&e)
	full := l.size > eagerPending
	l.mu.Unlock()

	signal(l.wake)
	if full {
		signal(l.full)
	}
}

// signal tells the writer, unless it knows already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lost is the event that stands for those that were dropped.
func lost(n int) Event {
	return Event{Time: time.Now(), Class: ClassConfig, Activity: "FAILED", Severity: SeverityHigh,
		Message: fmt.Sprintf("%d events were dropped: they came faster than they could be written", n)}
}

// weight is about how many bytes an event keeps in memory.
func weight(e *Event) int {
	n := 512 + len(e.Host) + len(e.Reason) + len(e.Message)
	if e.Process != nil {
		n += len(e.Process.Path) + 64*len(e.Process.Ancestors)
	}
	if e.HTTP != nil {
		n += len(e.HTTP.Method) + len(e.HTTP.Path)
	}
	return n
}

// run writes what was recorded, a batch at a time; without events it sleeps.
func (l *Logger) run() {
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		select {
		case <-time.After(flushInterval):
		case <-l.full:
		case <-l.done:
			return
		}
		l.flush()
	}
}

// flush writes what waits. Failure is reported once, not per event: a full disk must
// not take the sandbox's log of everything else with it.
func (l *Logger) flush() {
	l.io.Lock()
	defer l.io.Unlock()

	l.mu.Lock()
	batch := l.pending
	if l.dropped > 0 {
		batch = append(batch, lost(l.dropped))
	}
	l.pending, l.size, l.dropped = nil, 0, 0
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}

	err := l.write(batch)
	if err != nil && !l.failing {
		slog.Error("audit events are being lost", "dir", l.dir, "error", err)
	}
	l.failing = err != nil
	if err != nil && l.lost != nil {
		l.lost(len(batch), err)
	}
}

func (l *Logger) write(batch []Event) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	var errs []error
	for i := range batch {
		errs = append(errs, l.people.append(append([]byte(Shorthand(batch[i])), '\n')))
		if l.ocsf == nil {
			continue
		}
		line, err := MarshalOCSF(batch[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.ocsf.append(append(line, '\n')))
	}
	errs = append(errs, l.people.flush())
	if l.ocsf != nil {
		errs = append(errs, l.ocsf.flush())
	}
	return errors.Join(errs...)
}

// Close writes what waits, syncs the files to the disk and closes them.
func (l *Logger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()

	close(l.done)
	l.idle.Wait()
	l.flush()

	l.io.Lock()
	defer l.io.Unlock()
	err := l.people.close()
	if l.ocsf != nil {
		err = errors.Join(err, l.ocsf.close())
	}
	return err
}
