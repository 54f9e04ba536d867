// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

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
