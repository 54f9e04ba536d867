// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/audit"
)

// LogFile is the name of the log of the process that has a sandbox, beside the
// sandbox's own log of what the workload did.
const LogFile = "supervisor.log"

// maxLog is the size at which a log is rotated, to the same name with .1.
const maxLog = 1 << 20

// processLog is where this process's own messages go: to the logs of the
// sandboxes that it has, which is one but for some shims.
var processLog struct {
	sync.Mutex
	captured bool
	logs     []*supervisorLog
}

// CaptureLog sends what this process logs to the logs of its sandboxes. Panics
// that end the process are told in the one that was opened last.
func CaptureLog() {
	processLog.Lock()
	defer processLog.Unlock()
	processLog.captured = true
	slog.SetDefault(slog.New(&logHandler{slog.NewTextHandler(logWriter{}, nil)}))
}

// logHandler also tells sandboxes of errors, for their health.
type logHandler struct{ slog.Handler }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "error" {
				text += ": " + a.Value.String()
			}
			return true
		})
		for _, l := range openLogs() {
			l.failed(text, r.Time)
		}
	}
	return h.Handler.Handle(ctx, r)
}

func openLogs() []*supervisorLog {
	processLog.Lock()
	defer processLog.Unlock()
	return slices.Clone(processLog.logs)
}

// logWriter writes to all logs.
type logWriter struct{}

func (logWriter) Write(p []byte) (int, error) {
	var errs []error
	for _, l := range openLogs() {
		errs = append(errs, l.write(p))
	}
	return len(p), errors.Join(errs...)
}

// supervisorLog is one sandbox's file.
type supervisorLog struct {
	path   string
	failed func(text string, at time.Time) // takes errors

	mu   sync.Mutex
	file *os.File // nil: not open, since nothing was written, or that failed
	size int64
}

// openLog opens the log of a sandbox, if this process's messages are captured.
func openLog(dir string, failed func(text string, at time.Time)) *supervisorLog {
	processLog.Lock()
	defer processLog.Unlock()
	if !processLog.captured {
		return nil
	}
	l := &supervisorLog{path: filepath.Join(dir, LogFile), failed: failed}
	processLog.logs = append(processLog.logs, l)
	return l
}

// close ends the log. It may be nil.
func (l *supervisorLog) close() {
	if l == nil {
		return
	}
	processLog.Lock()
	defer processLog.Unlock()
	processLog.logs = slices.DeleteFunc(processLog.logs, func(other *supervisorLog) bool { return other == l })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut()
	if len(processLog.logs) == 0 {
		_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
	}
}

// write appends a line, in a new file where the old one is full.
func (l *supervisorLog) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size+int64(len(line)) > maxLog {
		l.shut()
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil {
		l.shut() // and tried again
	}
	return err
}

func (l *supervisorLog) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size = f, info.Size()
	return nil
}

func (l *supervisorLog) shut() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// maxHealthText bounds what sandbox.json tells of an error, in bytes.
const maxHealthText = 1024

// Health is what goes wrong with a sandbox's supervisor. What is lost stays in
// it; what waits does not.
type Health struct {
	LastError   string    `json:"last_error,omitzero"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	EventsLost  int       `json:"events_lost,omitzero"` // of the log and events.jsonl
	// Unwritten is how many targets have evidence that could not be written. It
	// is kept in memory, and written when that is possible again.
	Unwritten int `json:"unwritten,omitzero"`
	// Unwritable says why.
	Unwritable string `json:"unwritable,omitzero"`
}

// Warning says on one line what whoever relies on the sandbox's log and
// proposals has to know; nothing where all is well.
func (h Health) Warning() string {
	switch {
	case h.Unwritten > 0 || h.Unwritable != "":
		return fmt.Sprintf("evidence is not being written, for %d targets by now: %s: it is lost unless that is mended before the supervisor ends", h.Unwritten, h.Unwritable)
	case h.EventsLost > 0:
		return fmt.Sprintf("%d events are missing in its log: %s", h.EventsLost, h.LastError)
	}
	return ""
}

// noteHealth changes what sandbox.json says of the supervisor's health.
func (s *Sandbox) noteHealth(change func(*Health)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.info.Health
	change(&s.info.Health)
	if s.info.Health == before {
		return
	}
	if err := s.writeInfo(); err != nil {
		slog.Warn("sandbox.json was not updated", "error", err) // an error would come back here
	}
}

// failed is for the process's log.
func (s *Sandbox) failed(text string, at time.Time) {
	// Whoever logs may hold the sandbox's lock.
	go s.noteHealth(func(h *Health) {
		h.LastError, h.LastErrorAt = audit.Escape(text, maxHealthText), at
	})
}

// eventsLost is for the audit log.
func (s *Sandbox) eventsLost(n int, err error) {
	s.noteHealth(func(h *Health) {
		h.EventsLost += n
		h.LastError, h.LastErrorAt = audit.Escape(err.Error(), maxHealthText), time.Now().Truncate(time.Second)
	})
}

// unwritten is for the learner.
func (s *Sandbox) unwritten(n int, err error) {
	s.noteHealth(func(h *Health) {
		h.Unwritten, h.Unwritable = n, ""
		if err != nil {
			h.Unwritable = audit.Escape(err.Error(), maxHealthText)
		}
	})
}
