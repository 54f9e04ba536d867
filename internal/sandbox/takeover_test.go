// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"openshell.ai/openshell/netns"
)

// A process that ends closes its files before it has ended: the keeper may start the next supervisor while the
// last one is still there.
func TestTakeOverWaitsForTheLastSupervisor(t *testing.T) {
	inner, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	last := newProcess(t)
	var info Info
	info.ID, info.Started, info.LastState = "c1", time.Now().UTC().Truncate(time.Second), Running
	if info.Supervisor, err = refTo(last.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if info.Keeper, err = refTo(os.Getppid()); err != nil {
		t.Fatal(err)
	}
	s := &Sandbox{dir: filepath.Join(t.TempDir(), info.ID), inner: inner}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeInfo(s.dir, info); err != nil {
		t.Fatal(err)
	}
	if err := s.enter(info.Started); err != nil {
		t.Fatal(err)
	}
	if info.Alive() || s.info.Supervisor.PID != os.Getpid() {
		t.Errorf("the sandbox has %+v, and %+v before", s.info.Supervisor, info.Supervisor)
	}
	if err := s.enter(info.Started.Add(time.Second)); err != errNothingLeft {
		t.Errorf("another sandbox of that name: %v", err)
	}
}
