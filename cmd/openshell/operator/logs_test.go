// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/sandbox"
)

func (n *testNode) logger(id string, maxBytes int64) *audit.Logger {
	n.t.Helper()
	l, err := audit.Open(n.store().SandboxDir(id), audit.Options{OCSF: true, MaxBytes: maxBytes})
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

func event(i int) audit.Event {
	return audit.Event{Time: start, Class: audit.ClassConfig, Activity: "LOADED", Message: fmt.Sprintf("event-%03d", i)}
}

func TestLogs(t *testing.T) {
	n := newNode(t)
	l := n.logger("abc-finished", 0)
	for i := range 5 {
		l.Record(event(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other := n.logger("abd-other", 0)
	other.Record(event(7))
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}

	out := n.run("logs", "abc")
	if strings.Count(out, "\n") != 5 || !strings.Contains(out, "event-000") {
		t.Errorf("all: %q", out)
	}
	for args, want := range map[string]string{"-n 2": "event-003 event-004", "-n 0": "", "-n 9": "event-000 event-001 event-002 event-003 event-004", "-f -n 1": "event-004"} {
		out := n.run(append([]string{"logs", "abc-finished"}, strings.Fields(args)...)...)
		if got := messages(out); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	for line := range strings.Lines(n.run("logs", "abc", "--json")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
	wantContains(t, n.fails("logs", "ab"), "abc-finished", "abd-other")
	wantContains(t, n.fails("logs", "abc", "-n", "-5"), "-n -5")

	// By its container, while it runs.
	n.sandbox("abc-finished", "agent", func(i *sandbox.Info) { i.Containers = []sandbox.Container{{ID: "web"}} })
	if got := messages(n.run("logs", "web", "-n", "1")); got != "event-004" {
		t.Errorf("by container: %q", got)
	}
}

func messages(text string) string {
	var found []string
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, "event-"); ok {
			found = append(found, "event-"+rest[:3])
		}
	}
	return strings.Join(found, " ")
}

func TestLogsWithoutEvents(t *testing.T) {
	n := newNode(t)
	n.sandbox("s1", "agent", nil)
	if out := n.run("logs", "s1"); out != "" {
		t.Errorf("nothing yet: %q", out)
	}
	n.write(n.config, n.read(n.config)+"audit: {ocsf: false}\n")
	wantContains(t, n.fails("logs", "s1", "--json"), "audit.ocsf")
}

func TestLogsAreFitForTerminals(t *testing.T) {
	n := newNode(t)
	n.write(filepath.Join(n.store().SandboxDir("s1"), "openshell.log"), "a\\x0a b\n\x1b[2J\r\ncut short")
	if out := n.run("logs", "s1"); out != "a\\x0a b\n\\x1b[2J\\x0d\ncut short\n" {
		t.Errorf("got %q", out)
	}
}

// Every event is printed once, in order, although the log is rotated, and the command ends with
// the sandbox.
func TestLogsFollow(t *testing.T) {
	n := newNode(t)
	n.sandbox("s1", "agent", nil)
	root, out, _ := n.command("", "logs", "-f", "s1")
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(t.Context()) }()

	l := n.logger("s1", 12<<10) // more than half of the events
	log := filepath.Join(n.store().SandboxDir("s1"), "openshell.log")
	const events = 300
	for i := range events {
		l.Record(event(i))
		written := func() bool {
			text, _ := os.ReadFile(log)
			return strings.Contains(string(text), event(i).Message)
		}
		for late := time.Now().Add(time.Minute); i%30 == 0 && !written(); time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				t.Fatalf("event %d is not written", i)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(log + ".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.sandboxDir("s1")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on after the sandbox has ended")
	}
	var want []string
	for i := range events {
		want = append(want, fmt.Sprintf("event-%03d", i))
	}
	if got := messages(out.String()); got != strings.Join(want, " ") {
		t.Errorf("got %s", got)
	}
}

func TestLogsFollowEndsWithItsContext(t *testing.T) {
	n := newNode(t)
	n.sandbox("s1", "agent", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	root, _, _ := n.command("", "logs", "-f", "s1")
	if err := root.ExecuteContext(ctx); err != nil {
		t.Error(err)
	}
}

// The file that was missed between two readings, and the line that a killed writer left.
func TestTailAcrossTwoRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var out bytes.Buffer
	tl := &tail{path: path}
	defer tl.close()
	read := func(want string) {
		t.Helper()
		out.Reset()
		if err := tl.read(func(line []byte) error { _, err := fmt.Fprintf(&out, "%s,", line); return err }); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("got %q, want %q", out.String(), want)
		}
	}
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func() {
		t.Helper()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	read("")
	add("0\n")
	rotate()
	read("") // there is no file of the name
	add("1\n2")
	read("0,1,")
	add("2\n3\n4")
	read("22,3,")
	add("4\n5\n")
	rotate()
	read("44,5,")
	add("6\n")
	rotate()
	add("7\n")
	read("6,7,")
	add("8\nhalf")
	rotate()
	add("9\n")
	read("8,half,9,")
	add(strings.Repeat("x", maxLogLine+1))
	read(strings.Repeat("x", maxLogLine+1) + ",")
}
