// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/node"
)

// sleeper is a script that says when it runs, and then waits for ever. The test finds
// it on the host by its mark. A shell's trap waits for the shell's child, which a key
// may have missed: none is there for long.
func sleeper(t *testing.T, before string) (script, mark string) {
	mark = fmt.Sprintf("mark-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	return before + "echo ready; while :; do sleep 0.2; done # " + mark, mark
}

// runs reports whether any process of this host has a mark in its arguments.
func runs(t *testing.T, mark string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	node.Must(t, err)
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, []byte(mark)) {
			return true
		}
	}
	return false
}

// Not parallel: what is left is counted on the whole machine.
func TestTryEndsLikeTheCommand(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	w.Try("--", "/bin/true") // makes the directories that stay
	before := node.Snap(t, w.RunDir)
	for _, tt := range []struct {
		name, before string
		signal       syscall.Signal
		want         int
	}{
		{"TERM", "", unix.SIGTERM, 143},
		{"HUP", "", unix.SIGHUP, 129},
		{"INT", "", unix.SIGINT, 130},
		{"QUIT", "", unix.SIGQUIT, 131},
		{"handled", "trap 'echo caught; exit 9' INT; ", unix.SIGINT, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script, mark := sleeper(t, tt.before)
			cmd := w.Command("try", "--", "/bin/sh", "-c", script)
			cmd.Dir = w.TryDir()
			w.Launch(cmd)
			node.Eventually(t, node.Patience, "the command runs", func() bool { return strings.Contains(node.TextOf(cmd.Stdout), "ready") })
			node.Must(t, cmd.Process.Signal(tt.signal))
			o := w.Finish(cmd)
			if o.Status != tt.want || strings.Contains(o.Stdout, "caught") != (tt.want == 9) {
				t.Errorf("want status %d: %s", tt.want, o)
			}
			if runs(t, mark) {
				t.Error("it still runs")
			}
		})
	}
	node.NothingLeft(t, "commands that were ended", before, w.RunDir)
}

// A command that is killed takes everything with it, and the next clears up.
func TestTryKilled(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	w.Try("--", "/bin/true")
	before := node.Snap(t, w.RunDir)
	// Hostile to be ended: it ignores everything that can be ignored.
	script, mark := sleeper(t, "trap '' TERM HUP INT QUIT; (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done') & ")
	cmd := w.Command("try", "--permissive", "--", "/bin/sh", "-c", script)
	cmd.Dir = w.TryDir()
	w.Launch(cmd)
	node.Eventually(t, node.Patience, "the command runs", func() bool { return strings.Contains(node.TextOf(cmd.Stdout), "ready") && runs(t, mark) })
	node.Must(t, cmd.Process.Kill())
	w.Finish(cmd)
	node.Eventually(t, node.Patience, "nothing runs any more", func() bool { return !runs(t, mark) })
	node.Eventually(t, node.Patience, "the sandbox has gone", func() bool {
		left, err := os.ReadDir(filepath.Join(w.RunDir, "sandboxes"))
		return err == nil && len(left) == 0
	})
	if o := w.Try("--", "/bin/true"); o.Status != 0 {
		t.Error(o)
	}
	node.NothingLeft(t, "a command that was killed, and another", before, w.RunDir)
}

// tryTerminal is a terminal that openshell try is the session leader of.
type tryTerminal struct {
	master *os.File
	mu     sync.Mutex
	got    bytes.Buffer
}

func (p *tryTerminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.Write(b)
}

func (p *tryTerminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.String()
}

func onTerminal(w *node.World, args ...string) (*exec.Cmd, *tryTerminal) {
	w.T.Helper()
	// Closing it must close it, though it is being read: it is left to Go's poller.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	node.Must(w.T, err)
	node.Must(w.T, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	node.Must(w.T, err)
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	node.Must(w.T, err)
	defer slave.Close()
	cmd := w.Command(append([]string{"try"}, args...)...)
	cmd.Dir = w.TryDir()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	node.Must(w.T, w.Net.Do(cmd.Start))
	p := &tryTerminal{master: master}
	go io.Copy(p, master)
	return cmd, p
}

func TestTryOnATerminal(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	for _, tt := range []struct {
		name, before string
		act          func(*testing.T, *tryTerminal)
		want         int
	}{
		{"Ctrl-C", "", typing("\x03"), 130},
		{"Ctrl-C that is handled", "trap 'exit 9' INT; ", typing("\x03"), 9},
		{"Ctrl-backslash", "ulimit -c 0; ", typing("\x1c"), 131},
		{"Ctrl-Z does not lose it", "", typing("\x1a\x1a\x03"), 130},
		{"the terminal is closed", "", func(t *testing.T, p *tryTerminal) { node.Must(t, p.master.Close()) }, 129},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script, mark := sleeper(t, tt.before)
			cmd, p := onTerminal(w, "--", "/bin/sh", "-c", script)
			node.Eventually(t, node.Patience, "the command runs", func() bool { return strings.Contains(p.text(), "ready") })
			tt.act(t, p)
			if status := statusOf(cmd); status != tt.want {
				t.Errorf("status %d, want %d: %s", status, tt.want, p.text())
			}
			if runs(t, mark) {
				t.Error("it still runs")
			}
			p.master.Close()
		})
	}
	t.Run("an interactive shell", func(t *testing.T) {
		cmd, p := onTerminal(w, "--", "/bin/sh", "-i")
		typing("echo $((40+2)); sleep 0.1 & wait; exit 7\n")(t, p)
		if status := statusOf(cmd); status != 7 || !strings.Contains(p.text(), "42") {
			t.Errorf("status %d: %s", status, p.text())
		}
	})
}

// statusOf waits for a command, whose output the terminal has.
func statusOf(cmd *exec.Cmd) int {
	defer time.AfterFunc(node.Patience, func() { _ = cmd.Process.Kill() }).Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// typing types keys.
func typing(keys string) func(*testing.T, *tryTerminal) {
	return func(t *testing.T, p *tryTerminal) {
		t.Helper()
		_, err := io.WriteString(p.master, keys)
		node.Must(t, err)
	}
}
