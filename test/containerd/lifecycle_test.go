// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func testLifecycle(t *testing.T, n *node) {
	id := n.name("cycle")
	t.Cleanup(func() { n.remove(t, id) })
	create := append([]string{"container", "create"}, runFlags()...)
	n.mustCtr(t, append(create, boxImage, id, patientPath)...)
	n.mustCtr(t, "task", "start", "--detach", id)
	n.awaitStatus(t, id, "RUNNING")
	n.sandboxOf(t, id)

	if text := n.mustCtr(t, "task", "ps", id); strings.Count(text, "\n") < 2 {
		t.Errorf("processes: %q", text)
	}
	if text := n.mustCtr(t, "task", "metrics", id); !strings.Contains(text, "memory.usage_in_bytes") {
		t.Errorf("metrics: %q", text)
	}
	n.mustCtr(t, "task", "pause", id)
	n.awaitStatus(t, id, "PAUSED")
	n.mustCtr(t, "task", "resume", id)
	n.awaitStatus(t, id, "RUNNING")
	n.awaitHandler(t, n.sandboxOf(t, id).Containers[0].PID, filepath.Base(patientPath), unix.SIGTERM)
	n.mustCtr(t, "task", "kill", "--signal", "TERM", id)
	n.awaitStatus(t, id, "STOPPED")
	n.deletedWith(t, id, 9)

	// The same container again: its bundle is made anew.
	n.mustCtr(t, "task", "start", "--detach", id)
	n.awaitStatus(t, id, "RUNNING")
	n.mustCtr(t, "task", "kill", "--signal", "KILL", id)
	n.awaitStatus(t, id, "STOPPED")
	n.deletedWith(t, id, 137)
}

// awaitHandler waits until a process has become a program and catches a signal
// (proc_pid_status(5)), which the first one of a PID namespace does not receive
// before.
func (n *node) awaitHandler(t *testing.T, pid int, program string, signal unix.Signal) {
	t.Helper()
	eventually(t, fmt.Sprint("a handler for ", signal), func() bool {
		text, err := os.ReadFile(n.Path("proc", strconv.Itoa(pid), "status"))
		must(t, err)
		if !strings.HasPrefix(string(text), "Name:\t"+program+"\n") {
			return false
		}
		_, caught, _ := strings.Cut(string(text), "\nSigCgt:\t")
		caught, _, _ = strings.Cut(caught, "\n")
		mask, err := strconv.ParseUint(caught, 16, 64)
		must(t, err)
		return mask>>(signal-1)&1 == 1
	})
}

// deletedWith deletes a task that has ended, of which ctr tells the exit status.
func (n *node) deletedWith(t *testing.T, id string, status int) {
	t.Helper()
	o := n.run(t, n.ctr("task", "delete", id))
	if !strings.Contains(o.Stderr, fmt.Sprintf("exit code %d\"", status)) {
		t.Errorf("task %s is deleted, want its exit status %d: %s", id, status, o)
	}
}

func testExitStatus(t *testing.T, n *node) {
	for _, c := range []struct {
		argv   []string
		status int
	}{
		{[]string{"/bin/true"}, 0},
		{[]string{"/bin/sh", "-c", "exit 7"}, 7},
		{[]string{"/bin/sh", "-c", "sh -c 'kill -KILL $$'; exit $?"}, 137},
	} {
		if o := n.foreground(t, runFlags(), c.argv...); o.Status != c.status {
			t.Errorf("%q: want %d: %s", c.argv, c.status, o)
		}
	}
	o := n.foreground(t, runFlags(), "/bin/sh", "-c", "echo out; echo err >&2")
	if o.Stdout != "out\n" || o.Stderr != "err\n" {
		t.Errorf("output: %s", o)
	}
	o = n.foreground(t, runFlags(), "/no/such/program")
	if o.Status == 0 || !strings.Contains(o.Stderr, "no such file or directory") || !strings.Contains(o.Stderr, "/no/such/program") {
		t.Errorf("a program that is not there: %s", o)
	}
}

func testExec(t *testing.T, n *node) {
	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	if o := n.exec(t, id, "/bin/sh", "-c", "echo out; echo err >&2; exit 5"); o.Status != 5 || o.Stdout != "out\n" || o.Stderr != "err\n" {
		t.Errorf("exec: %s", o)
	}
	for program, want := range map[string]string{"/no/such": "no such file or directory", "nothing": "executable file not found in $PATH"} {
		if o := n.exec(t, id, program); o.Status == 0 || !strings.Contains(o.Stderr, want) || !strings.Contains(o.Stderr, program) {
			t.Errorf("exec of a program that is not there: want %q: %s", want, o)
		}
	}
	if o := n.run(t, n.ctr("task", "exec", "--exec-id", "as", "--user", "1000", id, "/bin/id", "-u")); o.Stdout != "1000\n" {
		t.Errorf("exec as a user: %s", o)
	}
	o := n.run(t, n.ctr("task", "exec", "--exec-id", "in", "--cwd", "/tmp", id, "/bin/pwd"))
	if o.Stdout != "/tmp\n" {
		t.Errorf("exec in a directory: %s", o)
	}
	n.mustCtr(t, "task", "exec", "--detach", "--exec-id", "sleeper", id, "/bin/sleep", "1000")
	if text := n.mustCtr(t, "task", "ps", id); !strings.Contains(text, "sleeper") {
		t.Errorf("processes: %q", text)
	}
	n.mustCtr(t, "task", "kill", "--exec-id", "sleeper", "--signal", "KILL", id)
}

func testTerminal(t *testing.T, n *node) {
	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	for name, cmd := range map[string]*exec.Cmd{
		"run":  n.ctr(runArgs(append([]string{"--rm", "--tty"}, runFlags()...), n.name("tty"), []string{"/bin/sh"})...),
		"exec": n.ctr("task", "exec", "--tty", "--exec-id", n.name("tty"), id, "/bin/sh"),
	} {
		p := openTerminal(t, cmd)
		p.resize(t, 40, 100)
		p.expect(t, name, "stty size", "40 100")
		p.resize(t, 50, 120)
		p.expect(t, name, "stty size", "50 120")
		p.expect(t, name, "test -t 0 && echo is-a-$((1+1))-tty", "is-a-2-tty")
		p.write(t, "exit 3\n")
		_ = cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 3 {
			t.Errorf("%s: exit status %d: %q", name, status, p.text())
		}
	}
}

func testAttach(t *testing.T, n *node) {
	id := n.name("attach")
	t.Cleanup(func() { n.remove(t, id) })
	first := n.ctr(runArgs(runFlags(), id, []string{"/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"})...)
	output := n.background(t, first)
	eventually(t, "output", func() bool { return strings.Contains(output(), "tick 3\n") })
	interrupt(first) // its container goes on
	again := n.background(t, n.ctr("task", "attach", id))
	eventually(t, "output after attach", func() bool { return strings.Count(again(), "tick ") > 3 })
	if strings.Contains(again(), "tick 1\n") {
		t.Errorf("old output after attach: %q", again())
	}
}

// What goes in comes out, and the end of it gets through.
func testInput(t *testing.T, n *node) {
	const size = 3 << 20
	// ctr gives up an output that it has not opened by the task's end, which a busy
	// machine can put off for longer than counting takes.
	count := []string{"/bin/sh", "-c", "wc -c; sleep 1"}
	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	for name, args := range map[string][]string{
		"run":  runArgs(append([]string{"--rm"}, runFlags()...), n.name("in"), count),
		"exec": append([]string{"task", "exec", "--exec-id", "in", id}, count...),
	} {
		cmd := n.ctr(args...)
		cmd.Stdin = strings.NewReader(strings.Repeat("x", size))
		if o := n.run(t, cmd); strings.TrimSpace(o.Stdout) != fmt.Sprint(size) {
			t.Errorf("%s: %s", name, o)
		}
	}
}

// events prints what happens. It is known to listen when it tells of what was
// done for it.
func (n *node) events(t *testing.T) (output func() string) {
	t.Helper()
	output = n.background(t, n.ctr("events"))
	eventually(t, "ctr events listens", func() bool {
		n.mustCtr(t, "namespaces", "label", n.namespace, "events="+n.name("heard"))
		return strings.Contains(output(), "/namespaces/update ")
	})
	return output
}

func testEvents(t *testing.T, n *node) {
	events := n.events(t)
	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	n.exec(t, id, "/bin/true")
	n.mustCtr(t, "task", "pause", id)
	n.mustCtr(t, "task", "resume", id)
	n.mustCtr(t, "task", "delete", "--force", id)
	for _, topic := range []string{"create", "start", "exec-added", "exec-started", "paused", "resumed", "exit", "delete"} {
		eventually(t, "event "+topic, func() bool {
			for line := range linesOf(events()) {
				if strings.Contains(line, "/tasks/"+topic+" ") && strings.Contains(line, id) {
					return true
				}
			}
			return false
		})
	}
}

func testOutOfMemory(t *testing.T, n *node) {
	events := n.events(t)
	o := n.foreground(t, append([]string{"--memory-limit", "33554432"}, runFlags()...), "/bin/tail", "/dev/zero")
	if o.Status != 137 {
		t.Errorf("a program that takes all memory: %s", o)
	}
	eventually(t, "event oom", func() bool { return strings.Contains(events(), "/tasks/oom ") })
}
