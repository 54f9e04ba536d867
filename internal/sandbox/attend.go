// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/runc/libcontainer/system"
)

const (
	// callTimeout bounds what is asked of a supervisor.
	callTimeout = 15 * time.Second
	// stoppedWait is how long a supervisor that is stopped is waited for.
	stoppedWait = 1500 * time.Millisecond
)

// StoppedError says that a supervisor does nothing because somebody stopped it.
type StoppedError struct{ PID int }

func (e *StoppedError) Error() string {
	return fmt.Sprintf("its supervisor, process %d, is stopped: let it go on with kill -CONT %d, or end it and its container with openshell delete --force", e.PID, e.PID)
}

// attend returns a context for waiting for a supervisor. It ends after
// callTimeout, and with a StoppedError once the supervisor has been stopped for
// some time.
func attend(ctx context.Context, s ProcessRef) (context.Context, context.CancelFunc) {
	ctx, cancelTimeout := context.WithTimeout(ctx, callTimeout)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(stoppedWait / 10)
		defer tick.Stop()
		for since := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !s.stopped() {
				since = time.Now()
			} else if time.Since(since) >= stoppedWait {
				cancel(&StoppedError{s.PID})
			}
		}
	}()
	return ctx, func() { cancel(nil); cancelTimeout() }
}

// stopped reports whether the process is stopped, by a signal or a debugger.
func (s ProcessRef) stopped() bool {
	stat, err := system.Stat(s.PID)
	return err == nil && stat.StartTime == s.StartTime &&
		(stat.State == system.Stopped || stat.State == system.TracingStop)
}

// awaitEnd waits for the process's end, and kills it after so long.
func (s ProcessRef) awaitEnd(within time.Duration) {
	p, err := openProcess(s.PID)
	if err != nil {
		return
	}
	defer p.close()
	if s.alive() && !p.ended(within) {
		_ = p.kill()
		p.ended(within)
	}
}

// kill ends the supervisor and waits for its end.
func (s ProcessRef) kill() error {
	p, err := openProcess(s.PID)
	if err != nil || !s.alive() {
		if err == nil {
			p.close()
		}
		return nil // it has ended, whoever has its pid now
	}
	defer p.close()
	if err := p.kill(); err != nil {
		return fmt.Errorf("end supervisor %d: %w", s.PID, err)
	}
	if !p.ended(callTimeout) {
		return fmt.Errorf("supervisor %d does not end", s.PID)
	}
	return nil
}
