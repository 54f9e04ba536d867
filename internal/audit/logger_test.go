// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, dir string, o Options) *Logger {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func event(n int) Event {
	return Event{Class: ClassNetwork, Activity: "OPEN", Action: ActionAllowed, Host: fmt.Sprintf("host-%d.example", n), Port: 443}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) == 0 || data[len(data)-1] != '\n' {
		t.Fatalf("%s does not end with a line end", path)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func TestLoggerIsLazy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandboxes", "s")
	l := open(t, dir, Options{OCSF: true})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("the directory is there before the first event: %v", err)
	}
	l.Record(event(1))
	log := filepath.Join(dir, "openshell.log")
	for late := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if data, err := os.ReadFile(log); err == nil && len(data) > 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the event did not reach the file")
		}
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, log: 0o600, filepath.Join(dir, "events.jsonl"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
}

func TestLoggerConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{OCSF: true})
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Record(event(w*each + i))
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Record(event(0)) // is not an error after Close
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if got := len(lines(t, filepath.Join(dir, "openshell.log"))); got != writers*each {
		t.Errorf("%d lines, want %d", got, writers*each)
	}
	seen := map[string]bool{}
	for _, line := range lines(t, filepath.Join(dir, "events.jsonl")) {
		var e struct {
			Dst struct{ Domain string } `json:"dst_endpoint"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		seen[e.Dst.Domain] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d events, want %d", len(seen), writers*each)
	}
}

func TestLoggerWithoutOCSF(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	l.Record(event(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "events.jsonl")); !os.IsNotExist(err) {
		t.Errorf("events.jsonl: %v", err)
	}
	lines(t, filepath.Join(dir, "openshell.log"))
}

// A flood stays within two files of the limit, and loses nothing but the oldest.
func TestLoggerRotates(t *testing.T) {
	dir := t.TempDir()
	const limit = 256 << 10
	l := open(t, dir, Options{MaxBytes: limit})
	const n = 20_000
	for i := range n {
		l.Record(event(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "openshell.log")
	for _, p := range []string{path, path + ".1"} {
		if info, err := os.Stat(p); err != nil || info.Size() > limit {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	kept := append(lines(t, path+".1"), lines(t, path)...)
	for i, line := range kept {
		if want := fmt.Sprintf("host-%d.example", n-len(kept)+i); !strings.Contains(line, want) {
			t.Fatalf("line %d of %d is %q, want %s", i, len(kept), line, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("files: %v", entries)
	}
}

// The logger goes on after its files were removed, moved, or cut in the middle of a line.
func TestLoggerFollowsTheFile(t *testing.T) {
	for name, disturb := range map[string]func(path string) error{
		"removed":  func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"moved":    func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error { os.Remove(path); return os.WriteFile(path, []byte("half a li"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s", "openshell.log")
			l := open(t, filepath.Dir(path), Options{})
			l.Record(event(1))
			l.flush()
			if err := disturb(path); err != nil {
				t.Fatal(err)
			}
			l.Record(event(2))
			l.flush()
			got := lines(t, path)
			if last := got[len(got)-1]; !strings.Contains(last, "host-2.example") || strings.Contains(last, "half") {
				t.Errorf("lines %q", got)
			}
		})
	}
}

// Nothing is written through a link that somebody put in a log's place.
func TestLoggerRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "openshell.log")); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, Options{})
	l.Record(event(1))
	l.Close()
	if data, _ := os.ReadFile(victim); string(data) != "x" {
		t.Errorf("victim holds %q", data)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open("relative", Options{}); err == nil {
		t.Error("relative directory")
	}
	if _, err := Open("/x", Options{MaxBytes: -1}); err == nil {
		t.Error("negative limit")
	}
}

func TestPrune(t *testing.T) {
	root := t.TempDir()
	now := time.Now()
	if err := Prune(filepath.Join(root, "none"), 7, now); err != nil {
		t.Errorf("without logs: %v", err)
	}
	make := func(id string, file, dir time.Duration) {
		t.Helper()
		d := filepath.Join(root, "sandboxes", id)
		f := filepath.Join(d, "openshell.log")
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for path, age := range map[string]time.Duration{f: file, d: dir} {
			if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const day = 24 * time.Hour
	make("old", 8*day, 8*day)
	make("busy", day, 30*day)
	make("new", 6*day, 6*day)
	left := func() []string {
		entries, err := os.ReadDir(filepath.Join(root, "sandboxes"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if err := Prune(root, 0, now); err != nil || len(left()) != 3 {
		t.Errorf("keeping everything: %v, %v", err, left())
	}
	if err := Prune(root, 7, now); err != nil || !slices.Equal(left(), []string{"busy", "new"}) {
		t.Errorf("after pruning: %v, %v", err, left())
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(b.TempDir(), Options{OCSF: true})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	e := Event{Time: time.Now(), Sandbox: "s", Container: "c", Mode: "enforcing", Class: ClassHTTP, Activity: "GET",
		Action: ActionAllowed, Disposition: DispositionAllowed, Process: curl(), Host: "api.github.com", Port: 443,
		HTTP: &HTTP{Method: "GET", Scheme: "https", Path: "/repos/o/r", Status: 200}, Policy: "gh", Engine: "l7"}
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
}

// Whoever records does not wait for the disk. What it is too slow for is dropped, and the
// log says how much.
func TestLoggerDropsRatherThanWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	l := open(t, dir, Options{MaxBytes: 1 << 30})
	l.io.Lock() // the disk takes its time
	n := 0
	for dropped := 0; dropped < 10; n++ {
		l.Record(event(n))
		l.mu.Lock()
		dropped = l.dropped
		l.mu.Unlock()
	}
	if l.size > maxPending+4096 {
		t.Errorf("%d bytes wait", l.size)
	}
	l.io.Unlock()
	l.Record(event(n))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log := lines(t, filepath.Join(dir, "openshell.log"))
	text := strings.Join(log[len(log)-min(len(log), 3):], "\n")
	if !strings.Contains(text, "10 events were dropped") && !strings.Contains(text, "11 events were dropped") {
		t.Errorf("the log ends with\n%s", text)
	}
	if len(log) < n-11 || len(log) > n+2 {
		t.Errorf("%d lines for %d events", len(log), n)
	}
}
