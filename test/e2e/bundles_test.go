// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// A working directory that the workload's user cannot enter is where it is, and not
// granted.
func TestWorkingDirectoryOfAnother(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/working directory")
	w := node.New(t)
	w.Policy("agent", noNetwork)
	for _, mode := range [][]node.Edit{nil, {node.Permissive}} {
		c := w.Container(append([]node.Edit{node.Policy("agent"), node.Args("/bin/busybox", "id", "-u"), func(s *specs.Spec) {
			s.Process.Cwd, s.Process.User = "/root", specs.User{UID: 42, GID: 42}
		}}, mode...)...)
		node.Must(t, os.Mkdir(filepath.Join(c.Rootfs(), "root"), 0o700))
		if o := c.Run(); o.Status != 0 || o.Stdout != "42\n" {
			t.Errorf("%s", o)
		}
		c.AwaitEnd()
	}
}

// What has become of config.json after create is nothing to start
// (runtime-spec, runtime.md, "Lifecycle").
func TestConfigAfterCreate(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/config.json after create")
	for name, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"changed": func(path string) error {
			return os.WriteFile(path, []byte(`{"ociVersion":"1.0.0","annotations":{}}`), 0o600)
		},
		"broken": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		w := node.New(t)
		w.Policy("web", webOnly)
		c := w.Container(node.Policy("web"), node.Args(node.SequenceOf(
			[]string{"get", "http://" + fakenet.GitHubHost + "/" + name}, []string{"get", "http://" + fakenet.WebHost + "/" + name})...))
		c.Create()
		node.Must(t, change(c.ConfigPath()))
		c.LetGo()
		node.Eventually(t, node.Patience, "the workload's requests", func() bool { return len(w.Net.Saw(fakenet.WebHost)) > 0 })
		w.Unseen(fakenet.GitHubHost)
		c.Delete()
	}
}

// A descriptor that an engine keeps for the workload can be opened anew as it is open,
// and not otherwise.
func TestKeptDescriptors(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/kept descriptors")
	w := node.New(t)
	w.Policy("agent", noNetwork)
	path := filepath.Join(w.Dir, "kept")
	node.Must(t, os.WriteFile(path, []byte("kept"), 0o666))
	node.Must(t, os.Chmod(path, 0o666))
	kept, err := os.Open(path)
	node.Must(t, err)
	defer kept.Close()
	node.Must(t, os.WriteFile(filepath.Join(w.Dir, "other"), []byte("other"), 0o666))
	dir, err := os.Open(w.Dir)
	node.Must(t, err)
	defer dir.Close()
	const script = `cat /proc/self/fd/3; (echo changed > /proc/self/fd/3) 2>/dev/null && echo written; cat /proc/self/fd/4/other 2>/dev/null && echo below`
	c := w.Container(node.Policy("agent"), node.Script(script))
	c.Begun = true
	cmd := w.Command("--root", w.Root, "run", "--preserve-fds", "2", "--bundle", c.Bundle, c.ID)
	cmd.ExtraFiles = []*os.File{kept, dir}
	w.Launch(cmd)
	if o := w.Finish(cmd); strings.TrimSpace(o.Stdout) != "kept" {
		t.Errorf("%s", o)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "kept" {
		t.Errorf("the file is %q, %v", text, err)
	}
	c.AwaitEnd()
}

// Before its start nothing can be confined, and so nothing executed: one line says so.
func TestExecBeforeStart(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/exec before start")
	w := node.New(t)
	w.Policy("agent", noNetwork)
	c := w.Container(node.Policy("agent"))
	c.Create()
	if o := c.Exec("/bin/busybox", "echo", "here"); o.Status == 0 || strings.Count(o.Stderr, "\n") != 1 ||
		!strings.Contains(o.Stderr, "is created, but not started") {
		t.Errorf("%s", o)
	}
	c.LetGo()
	if o := c.Exec("/bin/busybox", "echo", "there"); o.Status != 0 || o.Stdout != "there\n" {
		t.Errorf("%s", o)
	}
}

// compileC puts a static C program into a container's /bin.
func compileC(t *testing.T, c *node.Container, name, source string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".c")
	node.Must(t, os.WriteFile(file, []byte(source), 0o600))
	cmd := exec.Command("cc", "-static", "-O1", "-D_GNU_SOURCE", "-o", filepath.Join(c.Rootfs(), "bin", name), file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// narrowProgram prints what comes of a call that openshell-init makes too, and that
// its profile does not have, if it is given an argument.
const narrowProgram = `
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char text[] = "error 0\n";
	if (argc > 1 && syscall(SYS_faccessat2, -100, "/", 0, 0) != 0)
		text[6] = '0' + errno % 10;
	write(1, text, sizeof text - 1);
	_exit(0);
}
`

// startupCalls are those of a static C program and, before them, of the low-level
// runtime once its profile is in force.
var startupCalls = []string{
	"execve", "exit_group", "write", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink",
	"readlinkat", "getrandom", "mprotect", "newfstatat",
	"futex", "openat", "fstatfs", "close", "fcntl", "getdents64", "fstat", "epoll_ctl", "rt_sigreturn", "sched_yield", "madvise", "tgkill",
	"getpid", "nanosleep", "close_range", "prctl",
}

func profile(action specs.LinuxSeccompAction, errno uint, calls ...string) node.Edit {
	return func(s *specs.Spec) {
		s.Process.NoNewPrivileges = true // or the low-level runtime has more to do under it
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: action,
			Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActAllow}}}
		if errno != 0 {
			s.Linux.Seccomp.DefaultErrnoRet = &errno
		}
	}
}

// A profile that allows what a static C program calls is enough, and stays what it is.
func TestNarrowProfiles(t *testing.T) {
	cases.Show(t, "bundles/narrow profiles")
	t.Parallel()
	w := node.New(t)
	for name, edits := range map[string][]node.Edit{
		"error":        {profile(specs.ActErrno, 0, startupCalls...)},
		"own error":    {profile(specs.ActErrno, 7, startupCalls...)},
		"kill":         {profile(specs.ActKillProcess, 0, startupCalls...), node.Args("/bin/narrow")},
		"killed":       {profile(specs.ActKillProcess, 0, startupCalls...)},
		"one process":  {func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(1))} }},
		"both at once": {profile(specs.ActErrno, 0, startupCalls...), func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(1))} }},
	} {
		for _, permissive := range []bool{true, false} {
			edits := append([]node.Edit{node.Args("/bin/narrow", "try")}, edits...)
			if permissive {
				edits = append(edits, node.Permissive)
			}
			c := w.Container(edits...)
			compileC(t, c, "narrow", narrowProgram)
			plain := c.RunPlain()
			if (plain.Status != 0) != (name == "killed") {
				t.Fatalf("%s: without openshell: %s", name, plain)
			}
			if o := c.Run(); o != plain {
				t.Errorf("%s, permissive %t: %s\nand without openshell: %s", name, permissive, o, plain)
			}
		}
	}
}
