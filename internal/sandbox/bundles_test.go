// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func bundleClaims(t *testing.T, runDir string) int {
	t.Helper()
	entries, err := os.ReadDir(bundlesDir(runDir))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(entries)
}

// One container at a time is made from a bundle, and the next one's turn comes as
// soon as that exists.
func TestBundleIsClaimed(t *testing.T) {
	run, bundle, root := t.TempDir(), t.TempDir(), t.TempDir()
	first, second := Container{ID: "c1", Root: root, Bundle: bundle}, Container{ID: "c2", Root: root, Bundle: bundle + "/."}
	creator := newProcess(t)
	must(t, first.ClaimBundle(t.Context(), run, creator.Process.Pid))
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := second.ClaimBundle(short, run, os.Getpid()); err == nil || !strings.Contains(err.Error(), "container c1 is being made from it") {
		t.Errorf("got %v", err)
	}
	again := first
	if err := again.ClaimBundle(short, run, os.Getpid()); err == nil {
		t.Error("another process may make the same container from it")
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := second.ClaimBundle(t.Context(), run, os.Getpid()); err != nil {
			t.Error(err)
		}
	})
	writeState(t, "runc", root, "c1", creator.Process.Pid)
	waiting.Wait()
	first.ReleaseBundle(run) // it is another's by now
	must(t, sweepBundleClaims(run))
	if bundleClaims(t, run) != 1 {
		t.Error("the second claim is gone")
	}
	second.ReleaseBundle(run)
	if bundleClaims(t, run) != 0 {
		t.Error("a claim is left")
	}
}

func TestBundleOfACreatorThatEnded(t *testing.T) {
	run, bundle := t.TempDir(), t.TempDir()
	creator := newProcess(t)
	c := Container{ID: "c1", Root: t.TempDir(), Bundle: bundle}
	must(t, c.ClaimBundle(t.Context(), run, creator.Process.Pid))
	end(creator)
	must(t, sweepBundleClaims(run))
	if bundleClaims(t, run) != 0 {
		t.Error("the claim is left")
	}
	must(t, c.ClaimBundle(t.Context(), run, os.Getpid()))
	for _, text := range []string{"", "{", `{"creator":{"pid":1}}`} { // damaged
		must(t, os.WriteFile(bundlesDir(run)+"/"+strings.Split(c.BundleClaim, "/")[0], []byte(text), 0o600))
		must(t, c.ClaimBundle(t.Context(), run, os.Getpid()))
	}
	missing := Container{ID: "c2", Root: t.TempDir(), Bundle: bundle + "/none"}
	if err := missing.ClaimBundle(t.Context(), run, os.Getpid()); err != nil || missing.BundleClaim != "" {
		t.Errorf("%q, %v", missing.BundleClaim, err)
	}
}

// The sandbox gives the claim up once its container exists, or never will.
func TestBundleIsReleased(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	for _, made := range []bool{true, false} {
		r := request(t.TempDir(), "c1")
		r.Container.Bundle = t.TempDir()
		creator := newProcess(t)
		r.Creator = creator.Process.Pid
		must(t, r.Container.ClaimBundle(t.Context(), c.RunDir, r.Creator))
		s := start(t, c, r)
		if made {
			writeState(t, "runc", r.Container.Root, "c1", newProcess(t).Process.Pid)
		} else {
			end(creator)
		}
		eventually(t, "the claim is released", func() bool { return bundleClaims(t, c.RunDir) == 0 })
		closeContainer(t, c, r.Container.Root, "c1")
		eventually(t, "the sandbox ends", hasEnded(s))
	}
}
