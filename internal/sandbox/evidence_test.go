// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/learn"
)

// blockState puts a file where the proposals of c1 are to be, so that nothing
// can be written there.
func blockState(t *testing.T, stateDir string) (unblock func()) {
	t.Helper()
	path := filepath.Join(stateDir, "policies", "c1", "proposals")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func denial(host string) learn.Denial {
	return learn.Denial{Permissive: true, Layer: "l4", Host: host, Port: 443, Protocol: "tcp", Binary: "/usr/bin/curl",
		Reason: "no rule", Kind: learn.KindConnect, Time: time.Now()}
}

// What cannot be written is said, waits, and is written when that is possible;
// the sandbox's end and the next sandbox of its name wait for nothing.
func TestEvidenceThatCannotBeWritten(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	unblock := blockState(t, c.StateDir)
	r := request(root, "c1")
	r.Permissive, r.TTL = true, time.Hour
	s := start(t, c, r)
	s.learner.Observe(denial("a.example"))
	if err := Settle(t.Context(), c.RunDir, "c1"); err == nil || !strings.Contains(err.Error(), "evidence is not being written") {
		t.Errorf("settle: %v", err)
	}
	if h := only(t, c).Health; h.Unwritten != 1 || !strings.Contains(h.Unwritable, "not a directory") || h.Warning() == "" {
		t.Errorf("health: %+v", h)
	}

	var unwritten *UnwrittenError
	if err := Close(t.Context(), c, root, "c1"); !errors.As(err, &unwritten) {
		t.Errorf("close: %v", err)
	}
	if info := only(t, c); info.State() != Ending || info.ID != s.request.ID {
		t.Errorf("after the end: %+v", info)
	}
	next, err := Start(c, request(root, "c1"))
	if err != nil {
		t.Fatalf("the next one of its name: %v", err)
	}
	next.Stop()
	if err := Settle(t.Context(), c.RunDir, "c1"); !errors.As(err, &unwritten) && (err == nil || !strings.Contains(err.Error(), "not being written")) {
		t.Errorf("settle after the end: %v", err)
	}

	unblock()
	<-s.Done()
	if err := Settle(t.Context(), c.RunDir, "c1"); err != nil {
		t.Errorf("settle: %v", err)
	}
	proposals, err := learn.List(s.store, "c1")
	if err != nil || len(proposals) != 1 {
		t.Errorf("proposals: %+v, %v", proposals, err)
	}
	if all, err := List(c.RunDir); err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

// What was seen is proposed by the time Settle returns.
func TestSettle(t *testing.T) {
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	r.Permissive, r.TTL = true, time.Hour
	s := start(t, c, r)
	for _, host := range []string{"a.example", "b.example"} {
		s.learner.Observe(denial(host))
		if err := Settle(t.Context(), c.RunDir, "c1"); err != nil {
			t.Fatal(err)
		}
		proposals, err := learn.List(s.store, "c1")
		if err != nil || len(proposals) == 0 || proposals[len(proposals)-1].Rule == nil {
			t.Fatalf("%s: %v, %v", host, proposals, err)
		}
	}
}
