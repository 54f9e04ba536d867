// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/netns"
)

func TestStartAndStopLeaveNothing(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	for _, kind := range []OuterKind{OuterHost, OuterPath, OuterEmpty} {
		r := request(t.TempDir(), "c1")
		r.Outer.Kind = kind
		var outer *netns.Namespace
		if kind == OuterPath {
			var err error
			if outer, err = netns.New(); err != nil {
				t.Fatal(err)
			}
			r.Outer.Path = outer.Path()
		}
		s, err := Start(c, r)
		if err != nil {
			t.Fatal(err)
		}
		ready := s.Ready()
		ns, err := netns.Open(ready.Inner)
		if err != nil {
			t.Fatal(err)
		}
		if devices, err := netns.Devices(ns); err != nil || len(devices) != 0 {
			t.Errorf("%s: the inner namespace has %q, %v", kind, devices, err)
		}
		ns.Close()
		for _, file := range []string{filepath.Join(ready.Confine, confine.FilterName), filepath.Join(ready.Confine, confine.ConfigName),
			filepath.Join(ready.Confine, confine.InitName), filepath.Join(ready.TLS, CAFile), filepath.Join(ready.TLS, BundleFile)} {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o444 != 0o444 {
				t.Errorf("%s: %s: %v, %v", kind, file, info, err)
			}
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(s.Stop)
		}
		wg.Wait()
		<-s.Done()
		if entries, _ := os.ReadDir(sandboxesDir(c.RunDir)); len(entries) != 0 {
			t.Errorf("%s: left behind: %v", kind, entries)
		}
		if _, err := netns.Open(ready.Inner); err == nil {
			t.Errorf("%s: the inner namespace can still be opened", kind)
		}
		if outer != nil {
			outer.Close()
		}
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	noLeak(t)
	for name, tt := range map[string]struct {
		change func(*Request)
		policy string
		want   string
	}{
		"policy that does not exist": {func(r *Request) { r.PolicyNamed = true }, "", "does not exist"},
		"policy that is not valid":   {func(*Request) {}, "version: 7\n", "version"},
		"no outer namespace":         {func(r *Request) { r.Outer = Outer{Kind: OuterPath, Path: "/dev/null"} }, "", "not a network namespace"},
		"unknown outer kind":         {func(r *Request) { r.Outer.Kind = "bridge" }, "", "bridge"},
		"creator that is gone":       {func(r *Request) { r.Creator = 1 << 22 }, "", "creator"},
	} {
		c := newNode(t)
		if tt.policy != "" {
			writePolicy(t, c, "c1", tt.policy)
		}
		r := request(t.TempDir(), "c1")
		tt.change(&r)
		s, err := Start(c, r)
		if s != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		if entries, _ := os.ReadDir(sandboxesDir(c.RunDir)); len(entries) != 0 {
			t.Errorf("%s: left behind: %v", name, entries)
		}
	}
	for _, spoil := range []string{"dns", "roots"} {
		c := newNode(t)
		if spoil == "dns" {
			c.DNS.Upstream = []string{"nonsense"}
		} else {
			c.TLS.ExtraRoots = []string{"/dev/null"}
		}
		if s, err := Start(c, request(t.TempDir(), "c1")); s != nil || err == nil {
			t.Errorf("%s: %v, %v", spoil, s, err)
		}
		for _, dir := range []string{c.RunDir, c.StateDir} {
			if !missing(dir)() {
				t.Errorf("%s: %s was made", spoil, dir)
			}
		}
	}
	c := newNode(t)
	root := t.TempDir()
	first := start(t, c, request(root, "c1"))
	if s, err := Start(c, request(root, "c1")); s != nil || err == nil {
		t.Errorf("the same id twice: %v", err)
	}
	if confinementMode(t, first) != confine.ModeEnforcing {
		t.Error("the first one's files are gone")
	}
	first.Stop()
}

// An engine may name the host's own namespace by a path. It is the host's all
// the same: no one joins it, and its addresses are not lent.
func TestHostNamespaceByPath(t *testing.T) {
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	r.Outer = Outer{Kind: OuterPath, Path: "/proc/self/ns/net"}
	s := start(t, c, r)
	info, err := Find(c.RunDir, s.request.ID)
	if err != nil || info.Shared || s.request.Outer.Kind != OuterHost {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestAttachWhileEnding(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	s.Stop()
	if _, err := s.join(joinRequest{Container: Container{ID: "c2"}, Creator: os.Getpid()}); err != errEnding {
		t.Errorf("got %v", err)
	}
	if err := s.Reload(); err != errEnding {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the directory is back")
	}
}

func permissive(root, id string, ttl time.Duration, onExpiry string) Request {
	r := request(root, id)
	r.Permissive, r.TTL, r.OnExpiry = true, ttl, onExpiry
	return r
}

func TestPermissiveModeEnds(t *testing.T) {
	c := newNode(t)
	hand := newHandClock()
	s := startAt(t, hand, c, permissive(t.TempDir(), "c1", clockCheck, annotations.OnExpiryEnforce))
	info, err := Find(c.RunDir, "c1")
	if err != nil || info.Mode != confine.ModePermissive || info.TTL != clockCheck.String() || info.Deadline.IsZero() {
		t.Errorf("got %+v, %v", info, err)
	}
	if !s.snapshot().Permissive || confinementMode(t, s) != confine.ModePermissive {
		t.Fatal("it does not begin permissive")
	}
	// Policies that are reloaded at any moment must not bring it back.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var reloads atomic.Int64
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = s.Reload()
				reloads.Add(1)
			}
		})
	}
	eventually(t, "the timer waits", hand.waiting)
	hand.pass(clockCheck, clockCheck)
	eventually(t, "enforcing", func() bool { return !s.snapshot().Permissive })
	some := reloads.Load() + 10
	eventually(t, "reloads after that", func() bool { return reloads.Load() > some })
	cancel()
	wg.Wait()
	eventually(t, "the files say so", func() bool {
		info, err := Find(c.RunDir, "c1")
		return err == nil && info.Mode == confine.ModeEnforcing && info.TTL != ""
	})
	if s.snapshot().Permissive || confinementMode(t, s) != confine.ModeEnforcing {
		t.Errorf("permissive %t, execs %s", s.snapshot().Permissive, confinementMode(t, s))
	}
}

// Where the policy does not validate when the time is over, the last valid one
// is enforced.
func TestExpiryWithABadPolicy(t *testing.T) {
	c := newNode(t)
	hand := newHandClock()
	s := startAt(t, hand, c, permissive(t.TempDir(), "c1", clockCheck, annotations.OnExpiryEnforce))
	writePolicy(t, c, "c1", "not a policy")
	eventually(t, "the timer waits", hand.waiting)
	hand.pass(clockCheck, clockCheck)
	eventually(t, "enforcing", func() bool { return !s.snapshot().Permissive })
	eventually(t, "execs are confined", func() bool { return confinementMode(t, s) == confine.ModeEnforcing })
}

// Where later execs cannot be confined when the time is over, the network
// enforces all the same, and nothing more is executed.
func TestExpiryFailsClosed(t *testing.T) {
	c := newNode(t)
	hand := newHandClock()
	s := startAt(t, hand, c, permissive(t.TempDir(), "c1", clockCheck, annotations.OnExpiryEnforce))
	config := filepath.Join(s.confineDir(), confine.ConfigName)
	// A directory in its place cannot be replaced by a file.
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(config, 0o755); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the timer waits", hand.waiting)
	hand.pass(clockCheck, clockCheck)
	eventually(t, "enforcing", func() bool { return !s.snapshot().Permissive })
	eventually(t, "execs are refused", missing(config))
	if err := s.Reload(); err != nil || confinementMode(t, s) != confine.ModeEnforcing {
		t.Errorf("after a reload: %v, %s", err, confinementMode(t, s))
	}
}

func TestExpiryStopsTheWorkload(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	init := newProcess(t)
	writeState(t, "runc", root, "c1", init.Process.Pid)
	s := start(t, c, permissive(root, "c1", 100*time.Millisecond, annotations.OnExpiryStop))
	if err := init.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the first process ended with %v", err)
	}
	eventually(t, "the sandbox ends", hasEnded(s))
}

func TestReloadOfABadPolicyKeepsTheOldOne(t *testing.T) {
	c := newNode(t)
	writePolicy(t, c, "c1", "version: 1\n")
	s := start(t, c, request(t.TempDir(), "c1"))
	before := s.rules.Load()
	writePolicy(t, c, "c1", "version: 2\n")
	if ids, err := Reload(t.Context(), c.RunDir, "c1"); err == nil || len(ids) != 0 {
		t.Errorf("got %q, %v", ids, err)
	}
	if s.rules.Load() != before {
		t.Error("the policy was changed")
	}
	writePolicy(t, c, "c1", "version: 1\nnetwork_policies: {}\n")
	ids, err := Reload(t.Context(), c.RunDir, "c1")
	if err != nil || !slices.Equal(ids, []string{s.request.ID}) || s.rules.Load() == before {
		t.Errorf("got %q, %v", ids, err)
	}
	if ids, err := Reload(t.Context(), c.RunDir, "other"); err != nil || ids != nil {
		t.Errorf("another policy: %q, %v", ids, err)
	}
}

func TestControlSocketWithALongPath(t *testing.T) {
	c := newNode(t)
	c.RunDir = filepath.Join(c.RunDir, strings.Repeat("r", 200))
	id := strings.Repeat("c", 200)
	r := request(t.TempDir(), id)
	r.Policy = "c1"
	s := start(t, c, r)
	if ids, err := Reload(t.Context(), c.RunDir, "c1"); err != nil || len(ids) != 1 {
		t.Fatalf("got %q, %v", ids, err)
	}
	closeContainer(t, c, r.Container.Root, id)
	eventually(t, "the sandbox ends", hasEnded(s))
}

// A sandbox that took longer to start than it may be permissive ends that all the
// same.
func TestExpiryBeforeTheStartIsOver(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	init := newProcess(t)
	writeState(t, "runc", root, "c1", init.Process.Pid)
	s := start(t, c, permissive(root, "c1", time.Nanosecond, annotations.OnExpiryStop))
	if err := init.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the first process ended with %v", err)
	}
	eventually(t, "the sandbox ends", hasEnded(s))
}
