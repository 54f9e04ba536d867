// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/state"
)

const (
	// flushInterval is how long evidence is gathered before it is written.
	flushInterval = 300 * time.Millisecond
	// maxTargets bounds the evidence that waits, and maxWaiting its size in bytes.
	maxTargets = 4096
	maxWaiting = 16 << 20
	// lockedWrites is how many proposals are written before others get the policy's lock.
	lockedWrites = 512
	// keepTrying is how long after Close evidence that cannot be written is kept for a better moment.
	keepTrying = 10 * time.Minute
)

// Options of a Learner.
type Options struct {
	// FlushInterval is how long evidence is gathered before it is written; 0: a third
	// of a second. A crash loses no more than that.
	FlushInterval time.Duration
	// Record takes an event for each proposal that is new or has a new rule; nil: none.
	Record func(audit.Event)
	// Files are the paths that the policy in force grants, with all that is added to every
	// policy: accesses to them are no evidence. Nil: nothing is granted.
	Files func() FileRules
	// Report is told when evidence cannot be written, and how much waits for that, and of the end of it;
	// nil: nobody is.
	Report func(unwritten int, err error)
}

// Learner keeps the proposals of one policy up to date with the denials of one run. Several
// learners, in several processes, may work on one policy.
type Learner struct {
	store   *state.Store
	run     Run
	options Options

	wake     chan struct{}
	now      chan chan error // a flush is wanted at once, and its error
	done     chan struct{}   // closed: the last flush is wanted
	tried    chan struct{}   // closed: it has happened, and closeErr came of it
	closeErr error
	given    sync.Once
	giveUp   chan struct{} // closed: what it could not write need not be tried again
	stopped  chan struct{} // closed: all is written, or given up

	mu      sync.Mutex
	waiting map[target]*Evidence
	size    int
	record  RunRecord
	notes   noteCounts
	closed  bool

	// The rest belongs to the writing goroutine.
	proposed map[string]struct{} // ids this run has evidence for
	swept    bool
	failing  bool
	recorded bool // the run's record is as it should be
}

// Start starts a learner. It does no I/O itself: files appear when there is something to
// write, away from the caller.
func Start(store *state.Store, run Run, o Options) *Learner {
	if o.FlushInterval <= 0 {
		o.FlushInterval = flushInterval
	}
	l := &Learner{
		store: store, run: run, options: o,
		wake:     make(chan struct{}, 1),
		now:      make(chan chan error),
		done:     make(chan struct{}),
		tried:    make(chan struct{}),
		giveUp:   make(chan struct{}),
		stopped:  make(chan struct{}),
		waiting:  map[target]*Evidence{},
		record:   newRunRecord(run),
		notes:    noteCounts{},
		proposed: map[string]struct{}{},
	}
	if l.permissive() {
		l.signal() // that it ran permissively is on record, whatever comes
	}
	go l.loop()
	return l
}

func (l *Learner) permissive() bool { return l.run.Mode == ModePermissive }

// Observe takes in a denial. It does not wait for a disk, and its memory is bounded: when
// denials come faster than they can be written, details, and then denials, are left
// out, and the proposals and the run's record say so. After Close it does nothing.
func (l *Learner) Observe(d Denial) {
	if d.Time.IsZero() {
		d.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.record.Denials++
	t, ok := targetOf(d)
	if !ok {
		l.record.Unproposed++
		l.notes.add(noteOf(d))
		l.signal()
		return
	}
	l.take(t, func(e *Evidence) { e.add(l.run, d) })
}

// ObserveFile takes in what a program did to a file, unless the policy in force grants it. It is bounded
// as Observe is.
func (l *Learner) ObserveFile(a FileAccess) {
	if l.options.Files != nil {
		if rules := l.options.Files(); rules.Allows(a) {
			return
		}
	}
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.record.Denials++
	n, ok := requestFor(a)
	if !ok {
		l.record.Unproposed++
		l.notes.add(Note{Kind: NoteUnnamed, Host: a.Path, Binary: a.Binary, Reason: "no policy can grant " + a.Op.String()})
		l.signal()
		return
	}
	l.take(n.target(), func(e *Evidence) { e.addFile(l.run, n, a) })
}

// Lost notes that something was not seen that might have been evidence, so that
// what is proposed cannot cover all of the run.
func (l *Learner) Lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.record.Lost++
		l.signal()
	}
}

// take adds to the evidence that waits for a target. The caller holds the mutex.
func (l *Learner) take(t target, add func(*Evidence)) {
	e, ok := l.waiting[t]
	switch {
	case !ok && (len(l.waiting) >= maxTargets || l.size >= maxWaiting):
		l.record.Lost++
	case !ok:
		e = newEvidence(l.run.Policy, t)
		l.waiting[t] = e
		l.size += e.size()
		fallthrough
	case l.size < maxWaiting:
		before := e.size()
		add(e)
		l.size += e.size() - before
	default:
		e.hits++
		e.truncated = true
	}
	l.signal()
}

func (l *Learner) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake
	}
}

// Flush writes what waits.
func (l *Learner) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case l.now <- done:
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-l.tried:
		return l.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what waits and, for a permissive run, the run's record. Where that fails, or takes longer
// than the context, it returns an error, and the writing goes on or is tried again: see Done.
func (l *Learner) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	l.mu.Unlock()
	select {
	case <-l.tried:
		return l.closeErr
	case <-ctx.Done():
		return fmt.Errorf("closing the learner of policy %s: %w", l.run.Policy, ctx.Err())
	}
}

// Done is closed when a learner that was closed has written everything, or has given up.
func (l *Learner) Done() <-chan struct{} { return l.stopped }

// GiveUp has a learner that was closed lose what it has not been able to write.
func (l *Learner) GiveUp() { l.given.Do(func() { close(l.giveUp) }) }

// loop flushes an interval after something changed; while nothing does, it sleeps.
func (l *Learner) loop() {
	defer close(l.stopped)
	for {
		select {
		case <-l.wake:
		case done := <-l.now:
			done <- l.report(l.flush(time.Time{}))
			continue
		case <-l.done:
			l.finish()
			return
		}
		select {
		case <-time.After(l.options.FlushInterval):
			_ = l.report(l.flush(time.Time{}))
		case done := <-l.now:
			done <- l.report(l.flush(time.Time{}))
		case <-l.done:
			l.finish()
			return
		}
	}
}

// finish writes what is left, if need be again and again.
func (l *Learner) finish() {
	ended := time.Now()
	l.closeErr = l.report(l.flush(ended))
	close(l.tried)
	for time.Since(ended) < keepTrying {
		if l.unwritten() == 0 && l.recorded {
			return
		}
		select {
		case <-time.After(l.options.FlushInterval):
		case <-l.giveUp:
			return
		}
		_ = l.report(l.flush(ended))
	}
}

// unwritten is how many targets have evidence that waits.
func (l *Learner) unwritten() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// report logs the first of a series of failures, whose evidence waits for the next flush.
func (l *Learner) report(err error) error {
	if err != nil && !l.failing {
		slog.Error("proposals cannot be written", "policy", l.run.Policy, "run", l.run.ID, "error", err)
	}
	if l.options.Report != nil && (err != nil || l.failing) {
		l.options.Report(l.unwritten(), err)
	}
	l.failing = err != nil
	if err != nil {
		l.signal()
	}
	return err
}

// flush writes what waits. Ended is zero while the run goes on.
func (l *Learner) flush(ended time.Time) error {
	l.mu.Lock()
	batch := l.waiting
	l.waiting, l.size = map[target]*Evidence{}, 0
	l.mu.Unlock()

	var errs []error
	for targets := range slices.Chunk(slices.SortedFunc(maps.Keys(batch), target.compare), lockedWrites) {
		errs = append(errs, l.locked(func() error { return l.write(batch, targets) }))
	}
	l.putBack(batch)
	l.recorded = true
	if l.permissive() {
		err := l.locked(func() error { return l.writeRecord(ended) })
		l.recorded = err == nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l *Learner) locked(f func() error) error {
	unlock, err := l.store.Lock(l.run.Policy)
	if err != nil {
		return err
	}
	defer unlock()
	if !l.swept {
		l.swept = true
		if err := l.store.RemoveLeftovers(l.run.Policy); err != nil {
			slog.Warn("leftover files cannot be removed", "policy", l.run.Policy, "error", err)
		}
		if err := pruneRuns(l.store, l.run.Policy); err != nil {
			slog.Warn("records of old runs cannot be removed", "policy", l.run.Policy, "error", err)
		}
	}
	return f()
}

// write takes out of the batch what has been written, and what never can be.
func (l *Learner) write(batch map[target]*Evidence, targets []target) error {
	quota, err := quotaOf(l.store, l.run.Policy)
	if err != nil {
		return err
	}
	w := &writing{store: l.store, files: l.store.Batch(l.run.Policy), quota: quota, staged: map[string]bool{}}
	type result struct {
		of       target
		proposal Proposal
		what     outcome
		lost     error // why the evidence cannot be used
	}
	var results []result
	var errs []error
	for _, t := range targets {
		p, what, err := w.update(batch[t])
		var unusable *unusableError
		if err != nil && !errors.As(err, &unusable) {
			errs = append(errs, err)
			continue // it is tried again
		}
		results = append(results, result{t, p, what, err})
	}
	if err := w.files.Write(); err != nil {
		return errors.Join(append(errs, err)...) // all of it is tried again
	}
	for i := range results {
		switch r := &results[i]; {
		case r.lost != nil:
			errs = append(errs, r.lost)
			l.count(&l.record.Lost, batch[r.of].hits)
		case r.what == notExpressible:
			l.count(&l.record.Unproposed, batch[r.of].hits)
			l.mu.Lock()
			l.notes.add(noteOfEvidence(batch[r.of]))
			l.mu.Unlock()
		case r.what == overQuota:
			l.count(&l.record.Lost, batch[r.of].hits)
		default:
			l.proposed[r.proposal.ID] = struct{}{}
			l.announce(&r.proposal, r.what)
		}
		delete(batch, results[i].of)
	}
	return errors.Join(errs...)
}

// outcome is what evidence did to a proposal.
type outcome uint8

const (
	unchanged      outcome = iota // more evidence for the same rule
	created                       // there was none
	grown                         // it has another rule now
	notExpressible                // there is no rule for it
	overQuota                     // there is no room for another proposal
)

// unusableError is about a proposal on disk that evidence cannot be added to.
type unusableError struct{ error }

func (e *unusableError) Unwrap() error { return e.error }

func (l *Learner) announce(p *Proposal, what outcome) {
	if what == unchanged || l.options.Record == nil {
		return
	}
	l.options.Record(audit.Event{
		Sandbox: l.run.Sandbox, Container: l.run.Container, Mode: l.run.Mode,
		Class: audit.ClassConfig, Activity: "PROPOSED", Action: audit.ActionObserved,
		Policy: p.RuleName, Engine: "learn",
		Message: fmt.Sprintf("proposal %s of policy %s: %s", p.ID, p.Policy, p.Rationale),
	})
}

func (l *Learner) count(n *int, hits int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n += hits
}

// putBack keeps what could not be written for the next flush.
func (l *Learner) putBack(batch map[target]*Evidence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t, e := range batch {
		if newer, ok := l.waiting[t]; ok {
			l.size -= newer.size()
			e.merge(newer)
		}
		l.waiting[t] = e
		l.size += e.size()
	}
}
