// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/policy"
)

// supervisorOf returns the only sandbox there is.
func only(t *testing.T, c *config.Config) Info {
	t.Helper()
	all, err := List(c.RunDir)
	if err != nil || len(all) != 1 {
		t.Fatalf("sandboxes: %+v, %v", all, err)
	}
	return all[0]
}

func TestSpawnAndClose(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	root := t.TempDir()
	ready, err := Open(t.Context(), c, request(root, "c1"), spawn)
	if err != nil {
		t.Fatal(err)
	}
	info := only(t, c)
	if !info.Alive() || info.Supervisor.PID == os.Getpid() || info.Inner != ready.Inner || info.populated() {
		t.Errorf("got %+v", info)
	}
	closeContainer(t, c, root, "c1")
	if !missing(filepath.Join(c.RunDir, "sandboxes", info.ID))() {
		t.Error("the sandbox is left")
	}
	reap(t, info.Supervisor.PID)
}

// reap waits for a supervisor, which is this process's child.
func reap(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the supervisor ends", func() bool {
		n, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		return n == pid || err == unix.ECHILD
	})
}

func TestSpawnTellsTheReason(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	r.PolicyNamed = true
	if _, err := Open(t.Context(), c, r, spawn); err == nil || !strings.Contains(err.Error(), `policy "c1" does not exist`) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(sandboxesDir(c.RunDir)); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// A supervisor must not hold what the engine keeps open for the container.
func TestSupervisorHoldsNothingOfItsCreators(t *testing.T) {
	c := newNode(t)
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil { // inherited, as with --preserve-fds
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	root := t.TempDir()
	if _, err := Open(t.Context(), c, request(root, "c1"), spawn); err != nil {
		t.Fatal(err)
	}
	unix.Close(pipe[1])
	fds := []unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); n != 1 || fds[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("somebody still has the pipe: %d, %v", n, err)
	}
	info := only(t, c)
	closeContainer(t, c, root, "c1")
	reap(t, info.Supervisor.PID)
}

func TestConcurrentJoinsMakeOneSandbox(t *testing.T) {
	c := newNode(t)
	root, outer := t.TempDir(), namespaceFile(t)
	const containers = 8
	inner := make([]string, containers)
	var wg sync.WaitGroup
	for i := range containers {
		wg.Go(func() {
			r := request(root, fmt.Sprintf("c%d", i))
			r.Outer = Outer{Kind: OuterPath, Path: outer}
			ready, err := Open(t.Context(), c, r, spawn)
			if err != nil {
				t.Error(err)
			}
			inner[i] = ready.Inner
		})
	}
	wg.Wait()
	info := only(t, c)
	if len(info.Containers) != containers || !info.Shared {
		t.Errorf("got %+v", info)
	}
	for i := range containers {
		if inner[i] != info.Inner {
			t.Errorf("container %d is in %s, not in %s", i, inner[i], info.Inner)
		}
		wg.Go(func() { closeContainer(t, c, root, fmt.Sprintf("c%d", i)) })
	}
	wg.Wait()
	if entries, _ := os.ReadDir(sandboxesDir(c.RunDir)); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	reap(t, info.Supervisor.PID)
}

// The last container of a sandbox goes while the next one comes: that one gets a
// sandbox that lives.
func TestJoinsOfAnEndingSandbox(t *testing.T) {
	c := newNode(t)
	root, outer := t.TempDir(), namespaceFile(t)
	var closing sync.WaitGroup
	defer closing.Wait()
	for i := range 15 {
		r := request(root, fmt.Sprintf("c%d", i))
		r.Outer = Outer{Kind: OuterPath, Path: outer}
		ready, err := Open(t.Context(), c, r, inProcess(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(ready.Inner); err != nil {
			t.Fatalf("container %d: %v", i, err)
		}
		closing.Go(func() { _ = Close(t.Context(), c, root, r.Container.ID) })
		time.Sleep(time.Duration(i%5) * time.Millisecond)
	}
}

func TestJoinRules(t *testing.T) {
	root, outer := t.TempDir(), namespaceFile(t)
	enforcingNode, permissiveNode := newNode(t), newNode(t)
	for _, c := range []*config.Config{enforcingNode, permissiveNode} {
		writePolicy(t, c, "agent", "version: 1\n")
		r := request(root, "pause")
		r.Policy, r.PolicyNamed, r.Outer = "agent", true, Outer{Kind: OuterPath, Path: outer}
		if c == permissiveNode {
			r.Permissive, r.TTL, r.OnExpiry = true, time.Hour, "enforce"
		}
		start(t, c, r)
	}
	for _, tt := range []struct {
		name       string
		c          *config.Config
		policy     string
		permissive bool
		want       string
	}{
		{"says nothing", enforcingNode, "", false, ""},
		{"repeats the policy", enforcingNode, "agent", false, ""},
		{"another policy", enforcingNode, "other", false, "annotation openshell.ai/policy"},
		{"permissive in an enforcing one", enforcingNode, "", true, "annotation openshell.ai/permissive"},
		{"permissive in a permissive one", permissiveNode, "agent", true, ""},
		{"says nothing in a permissive one", permissiveNode, "", false, ""},
	} {
		r := request(root, "app")
		r.Policy, r.PolicyNamed = "app", tt.policy != ""
		if r.PolicyNamed {
			r.Policy = tt.policy
		}
		r.Permissive, r.TTL, r.Outer = tt.permissive, time.Hour, Outer{Kind: OuterPath, Path: outer}
		ready, err := Open(t.Context(), tt.c, r, inProcess(t))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if info := only(t, tt.c); err == nil && ready.Inner != info.Inner {
			t.Errorf("%s: it is in %s", tt.name, ready.Inner)
		}
		closeContainer(t, tt.c, root, "app")
	}
}

func TestSameIDAgain(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	for range 3 { // deleted and made anew at once
		if _, err := Open(t.Context(), c, request(root, "c1"), inProcess(t)); err != nil {
			t.Fatal(err)
		}
		closeContainer(t, c, root, "c1")
	}
	if _, err := Open(t.Context(), c, request(root, "c1"), inProcess(t)); err != nil {
		t.Fatal(err)
	}
	writeState(t, "runc", root, "c1", newProcess(t).Process.Pid)
	if _, err := Open(t.Context(), c, request(root, "c1"), inProcess(t)); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a running container's id: %v", err)
	}
}

func TestContradictedAnnotations(t *testing.T) {
	permissive := Info{TTL: "1h0m0s", OnExpiry: "enforce"}
	for _, tt := range []struct {
		info  Info
		key   string
		value string
		ok    bool
	}{
		{permissive, "openshell.ai/permissive", "true", true},
		{permissive, "openshell.ai/permissive", "false", false},
		{Info{}, "openshell.ai/permissive", "false", true},
		{permissive, "openshell.ai/permissive-ttl", "60m", true},
		{permissive, "openshell.ai/permissive-ttl", "2h", false},
		{permissive, "openshell.ai/permissive-on-expiry", "enforce", true},
		{permissive, "openshell.ai/permissive-on-expiry", "stop", false},
	} {
		err := tt.info.contradicted(map[string]string{tt.key: tt.value})
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), tt.key) {
			t.Errorf("%s=%s on %+v: %v", tt.key, tt.value, tt.info, err)
		}
	}
}

func TestHardRequirementOfLandlock(t *testing.T) {
	p := &policystore.Policies{Name: "agent", Effective: &policy.Policy{Landlock: &policy.Landlock{Compatibility: policy.CompatibilityBestEffort}}}
	if abi, err := checkLandlock(p); err != nil || abi == 0 {
		t.Errorf("best effort: %d, %v", abi, err)
	}
}
