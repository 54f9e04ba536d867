// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy/engine"
)

func logOf(t *testing.T, s *Sandbox) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.store.SandboxDir(s.request.ID), "openshell.log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

// ruleFor is a policy with one rule.
func ruleFor(host string) string { return strings.ReplaceAll(oneRule, "example.com", host) }

func (s *Sandbox) allows(host string) bool {
	return s.snapshot().Effective.Connect(engine.Connection{Binary: "/usr/bin/curl", Host: host, Port: 443}).Allowed
}

// reaches fails unless a change of the files is in force in less than the time
// of a poll.
func reaches(t *testing.T, s *Sandbox, host string) {
	t.Helper()
	began := time.Now()
	eventually(t, host+" is allowed", func() bool { return s.allows(host) })
	if took := time.Since(began); took > 2*pollEvery/3 {
		t.Errorf("%s: took %s", host, took)
	}
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func relink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+"~"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func TestChangedFilesAreReloaded(t *testing.T) {
	c := newNode(t)
	file := filepath.Join(c.PolicyDir, "c1.yaml")
	s := start(t, c, request(t.TempDir(), "c1"))

	writePolicy(t, c, "c1", ruleFor("new.example"))
	reaches(t, s, "new.example")
	writePolicy(t, c, "c1", ruleFor("inplace.example"))
	reaches(t, s, "inplace.example")
	replace(t, file, ruleFor("renamed.example"))
	reaches(t, s, "renamed.example")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rule is gone with its file", func() bool { return !s.allows("renamed.example") })

	// As the learner writes it, in directories that do not exist yet.
	if err := state.WriteFile(s.store.LearnedPath("c1"), []byte(ruleFor("learned.example")), 0o600); err != nil {
		t.Fatal(err)
	}
	reaches(t, s, "learned.example")
	if err := state.WriteFile(s.store.LearnedPath("c1"), []byte(ruleFor("more.example")), 0o600); err != nil {
		t.Fatal(err)
	}
	reaches(t, s, "more.example")
}

// As Kubernetes mounts a ConfigMap: the file is a link through ..data, which is
// replaced.
func TestConfigMapIsReloaded(t *testing.T) {
	c := newNode(t)
	for version, host := range map[string]string{"..1": "one.example", "..2": "two.example", "..3": "three.example"} {
		dir := filepath.Join(c.PolicyDir, version)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "c1.yaml"), []byte(ruleFor(host)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	relink(t, "..1", filepath.Join(c.PolicyDir, "..data"))
	relink(t, "..data/c1.yaml", filepath.Join(c.PolicyDir, "c1.yaml"))
	s := start(t, c, request(t.TempDir(), "c1"))
	reaches(t, s, "one.example")
	relink(t, "..2", filepath.Join(c.PolicyDir, "..data"))
	reaches(t, s, "two.example")
	if err := os.RemoveAll(filepath.Join(c.PolicyDir, "..1")); err != nil {
		t.Fatal(err)
	}
	relink(t, "..3", filepath.Join(c.PolicyDir, "..data"))
	reaches(t, s, "three.example")
	// In place, at the end of the links.
	if err := os.WriteFile(filepath.Join(c.PolicyDir, "..3", "c1.yaml"), []byte(ruleFor("end.example")), 0o644); err != nil {
		t.Fatal(err)
	}
	reaches(t, s, "end.example")
}

// A directory may not exist yet, or be replaced as a whole.
func TestReplacedDirectoryIsReloaded(t *testing.T) {
	c := newNode(t)
	real := c.PolicyDir
	c.PolicyDir = filepath.Join(filepath.Dir(real), "later", "policies")
	s := start(t, c, request(t.TempDir(), "c1"))
	if err := os.MkdirAll(c.PolicyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	writePolicy(t, c, "c1", ruleFor("later.example"))
	reaches(t, s, "later.example")
	for _, host := range []string{"other.example", "another.example"} {
		next := filepath.Join(filepath.Dir(real), host)
		if err := os.Mkdir(next, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(next, "c1.yaml"), []byte(ruleFor(host)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(c.PolicyDir, next+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, c.PolicyDir); err != nil {
			t.Fatal(err)
		}
		reaches(t, s, host)
	}
}

func TestPolicyErrorIsSaid(t *testing.T) {
	c := newNode(t)
	writePolicy(t, c, "c1", ruleFor("good.example"))
	s := start(t, c, request(t.TempDir(), "c1"))
	writePolicy(t, c, "c1", "version: 1\nnetwork_polices: {}\n")
	said := func(what string) func() bool {
		return func() bool {
			info, err := Find(c.RunDir, "c1")
			return err == nil && (what == "" && info.PolicyError == "" || what != "" && strings.Contains(info.PolicyError, what))
		}
	}
	eventually(t, "sandbox.json says it", said("network_polices"))
	if !s.allows("good.example") {
		t.Error("the last valid policy is not in force")
	}
	eventually(t, "the log says it", func() bool {
		log := logOf(t, s)
		return strings.Contains(log, "network_polices") && strings.Contains(log, "last valid one stays")
	})
	writePolicy(t, c, "c1", ruleFor("mended.example"))
	reaches(t, s, "mended.example")
	eventually(t, "sandbox.json is mended", said(""))
}

// An approval reaches the sandbox by the control socket and by the watch; it is
// loaded once.
func TestOneChangeIsReloadedOnce(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	writePolicy(t, c, "c1", ruleFor("once.example"))
	if err := s.Reload(); err != nil || !s.allows("once.example") {
		t.Fatal(err)
	}
	writePolicy(t, c, "c1", ruleFor("twice.example")) // the watch has seen the first by then
	reaches(t, s, "twice.example")
	loads := func() int { return strings.Count(logOf(t, s), "CONFIG:LOADED") }
	eventually(t, "the log tells of both", func() bool { return loads() >= 2 })
	if n := loads(); n != 2 {
		t.Errorf("two changes were loaded %d times", n)
	}
}

// Files that change all the time are read all the same, but not all the time.
func TestRestlessFilesAreReloaded(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = os.WriteFile(filepath.Join(c.PolicyDir, "c1.yaml~"), []byte(ruleFor("busy.example")), 0o644)
				_ = os.Rename(filepath.Join(c.PolicyDir, "c1.yaml~"), filepath.Join(c.PolicyDir, "c1.yaml"))
			}
		}
	}()
	defer func() { close(stop); <-done }()
	reaches(t, s, "busy.example")
	loads := 0
	for last, end := s.rules.Load(), time.Now().Add(5*settle); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if now := s.rules.Load(); now != last {
			last, loads = now, loads+1
		}
	}
	if loads > 6 {
		t.Errorf("%d loads in %s", loads, 5*settle)
	}
}

func TestResolvedBy(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"a", "b/c"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"a/up": "../b", "abs": at("a"), "loop": "loop"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("b/c/f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"b/c/f":        {"b/c"},
		"b/c/missing":  {"b/c"},
		"b/none/deep":  {"b"},
		"a/up/c/f":     {"a", "b/c"},
		"abs/up/c/f":   {".", "a", "b/c"},
		"abs/missing":  {".", "a"},
		"b/c/f/nofile": {"b/c/f"},
	} {
		var whole []string
		for _, w := range want {
			whole = append(whole, at(w))
		}
		got := resolvedBy(at(path))
		slices.Sort(got)
		slices.Sort(whole)
		if !reflect.DeepEqual(slices.Compact(got), whole) {
			t.Errorf("%s: got %q, want %q", path, got, whole)
		}
	}
	if got := resolvedBy(at("loop/f")); len(got) == 0 || len(got) > 2*maxLinks {
		t.Errorf("a loop: %d directories", len(got))
	}
}

// A name of a service of a host may leave where the host's may.
func TestServiceOfKnownHost(t *testing.T) {
	c := newNode(t)
	writePolicy(t, c, "c1", ruleFor("api.example"))
	r := request(t.TempDir(), "c1")
	r.Policy = "c1"
	s := start(t, c, r)
	for name, want := range map[string]bool{
		"_https._tcp.api.example": true, "_dmarc.api.example": true,
		"_https._tcp.other.example": false, "_leak.other.example": false, "leak._tcp.api.example": false,
		"_https._tcp.metadata.google.internal": false,
	} {
		if got := s.MayResolve(name); got != want {
			t.Errorf("%s: may leave %t", name, got)
		}
	}
	s.Refused("_leak.other.example")
	eventually(t, "it is on record", func() bool { return strings.Contains(logOf(t, s), "DNS denied _leak.other.example") })
}
