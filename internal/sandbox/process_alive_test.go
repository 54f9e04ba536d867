// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runc/libcontainer/system"
)

// A process that executes another program goes on, whichever of its threads does it: whoever looks at the wrong
// moment must not take what it has claimed.
func TestAliveWhileExecuting(t *testing.T) {
	cmd := exec.Command(os.Args[0], executeCommand, "200")
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	stat, err := system.Stat(cmd.Process.Pid)
	check(t, err)
	var done atomic.Bool
	go func() {
		_, _ = out.Read(make([]byte, 16))
		done.Store(true)
	}()
	for n := 0; !done.Load(); n++ {
		if !alive(cmd.Process.Pid, stat.StartTime) {
			t.Fatalf("dead at look %d", n)
		}
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if alive(cmd.Process.Pid, stat.StartTime) {
		t.Error("alive after its end")
	}
}
