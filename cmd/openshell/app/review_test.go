// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/containerd/console"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
)

// asProgram has the test's binary be openshell itself.
const asProgram = "OPENSHELL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// transcript is all that a program has written to its terminal.
type transcript struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.data.Write(p)
}

func (tr *transcript) raw() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.data.String()
}

func until(t *testing.T, seen *transcript, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %s", what, ansi.Strip(seen.raw()))
		}
	}
}

// A reviewer on a terminal looks at two proposals, approves the second one, edits the first, and quits.
func TestReviewOnATerminal(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version: 1\nstate_dir: %[1]s/state\nrun_dir: %[1]s/run\npolicy_dir: %[1]s/policies\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	editor := filepath.Join(dir, "editor")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\nsed -i -z 's/ *- allow:\\n *method: DELETE\\n *path: [^\\n]*\\n//' \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	store := state.Open(filepath.Join(dir, "state"))
	l := learn.Start(store, learn.Run{ID: "r1", Policy: "agent", Mode: learn.ModePermissive, Started: time.Now()}, learn.Options{})
	for _, d := range []learn.Denial{
		{Host: "a.example", Kind: learn.KindHTTP, TLS: "terminated", Method: "GET", Path: "/a"},
		{Host: "a.example", Kind: learn.KindHTTP, TLS: "terminated", Method: "DELETE", Path: "/b"},
		{Host: "b.example"},
	} {
		d.Time, d.Permissive, d.Layer, d.Port, d.Binary, d.Reason = time.Now(), true, "l4", 443, "/usr/bin/curl", "no rule"
		l.Observe(d)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	terminal, name, err := console.NewPty()
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	defer terminal.Close()
	if err := terminal.Resize(console.WinSize{Width: 80, Height: 24}); err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "review", "agent", "--config", config, "--by", "alice")
	// Bubble Tea 2.1.1 itself races where the size changes while an editor ends.
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm-256color", "NO_COLOR=1", "VISUAL="+editor, "GORACE=exitcode=0 log_path=/dev/null")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = side, side, side
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // for it to be told of new sizes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	side.Close()
	var seen transcript
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			_, _ = seen.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	press := func(keys string) {
		t.Helper()
		if _, err := terminal.Write([]byte(keys)); err != nil {
			t.Fatal(err)
		}
	}
	// What is on the screen already is not written again, except after a change of its size.
	width := uint16(80)
	shown := func(parts ...string) func() bool {
		return func() bool {
			width = 161 - width
			before := len(seen.raw())
			if err := terminal.Resize(console.WinSize{Width: width, Height: 24}); err != nil {
				t.Fatal(err)
			}
			for late := time.Now().Add(2 * time.Second); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
				text := ansi.Strip(seen.raw()[before:])
				if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) }) {
					return true
				}
			}
			return false
		}
	}
	proposal := func(host string) (found learn.Proposal) {
		all, err := learn.List(store, "agent")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.Rule.Endpoints[0].Host == host {
				found = p
			}
		}
		return found
	}
	status := func(host, want string) func() bool {
		return func() bool { return proposal(host).Status == want }
	}

	until(t, &seen, "the list", shown("review agent", "2 pending", "a.example:443", "b.example:443", "a approve"))
	press("j")
	until(t, &seen, "the details of the second proposal", shown("/usr/bin/curl b.example:443 (tcp)"))
	press("ay")
	until(t, &seen, "the approval", status("b.example", learn.StatusApproved))
	until(t, &seen, "the list without it", shown("1 approved"))
	press("e")
	until(t, &seen, "the edited rule", shown("this is to be approved"))
	press("y")
	until(t, &seen, "the approval of the edited rule", status("a.example", learn.StatusApproved))
	press("q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, ansi.Strip(seen.raw()))
	}
	if p := proposal("a.example"); p.DecidedBy != "alice" || p.Tightened == nil || len(p.Tightened.Rule.Endpoints[0].Rules) != 1 {
		t.Errorf("approved %+v", p)
	}
	if strings.Contains(seen.raw(), "\x1b[32m") {
		t.Error("there are colours in spite of NO_COLOR")
	}

	// Without a terminal there is a hint.
	cmd = exec.CommandContext(t.Context(), os.Args[0], "review", "agent", "--config", config)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "openshell proposals agent") {
		t.Errorf("%v: %s", err, out)
	}
}
