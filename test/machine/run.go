// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Outcome is what a command that ended left.
type Outcome struct {
	Stdout, Stderr string
	Status         int // -1 for a signal
}

func (o Outcome) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", o.Status, o.Stdout, o.Stderr)
}

// Run runs a command of a machine to its end. What takes longer than atMost is
// killed, which is an error, as is a command that does not start; the exit status
// is none.
func Run(cmd *exec.Cmd, atMost time.Duration) (Outcome, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // for what keeps its output open
	if err := cmd.Start(); err != nil {
		return Outcome{}, err
	}
	late := time.AfterFunc(atMost, func() {
		if pid, err := Child(cmd); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	err := cmd.Wait()
	outcome := Outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if !late.Stop() {
		return outcome, fmt.Errorf("%s did not end within %s: %s", strings.Join(cmd.Args, " "), atMost, outcome)
	}
	if status := new(exec.ExitError); err != nil && !errors.As(err, &status) && !errors.Is(err, exec.ErrWaitDelay) {
		return outcome, err
	}
	return outcome, nil
}
