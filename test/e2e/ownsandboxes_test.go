// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// ownProgram does what programs do that bring a sandbox of their own, and what the C libraries' newer functions do. It
// prints a line for each that fails.
const ownProgram = `
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
static struct sock_fprog program = {1, allow};

static void check(const char *what, long result)
{
	if (result < 0)
		printf("%s: %s\n", what, strerror(errno));
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	check("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	check("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
	check("prctl", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) >= 0 || errno != EINVAL)
		puts("a listener is given");
	struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_SOCK};
	int ruleset = syscall(444, &attr, sizeof attr, 0);
	check("landlock_create_ruleset", ruleset);
	check("landlock_restrict_self", syscall(446, ruleset, 0));
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(1);
	}
	int pidfd = syscall(SYS_pidfd_open, child, 0), status;
	check("pidfd_open", pidfd);
	check("pidfd_send_signal", syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0));
	check("wait", waitpid(child, &status, 0));
	child = fork();
	if (child == 0) {
		char *argv[] = {"true", NULL}, *env[] = {NULL};
		fexecve(open("/bin/busybox", O_PATH | O_CLOEXEC), argv, env);
		printf("fexecve: %s\n", strerror(errno));
		_exit(1);
	}
	check("wait", waitpid(child, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		puts("what is executed by its descriptor fails");
	puts("done");
	return 0;
}
`

// Filters stack, and Landlock's domains: what only takes away is anybody's.
func TestOwnSandboxes(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/agents' own sandboxes")
	w := node.New(t)
	for mode, edits := range modes {
		for name, edit := range map[string]node.Edit{"root": func(*specs.Spec) {},
			"a user": func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000} }} {
			c := w.Container(append(edits, edit, node.Args("/bin/own"))...)
			compileC(t, c, "own", ownProgram)
			if o := c.Run(); o.Status != 0 || o.Stdout != "done\n" {
				t.Errorf("%s, %s: %s", mode, name, o)
			}
			c.AwaitEnd()
		}
	}
}

// A file with capabilities that the sandbox drops is executed, without them.
func TestFileCapabilities(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/file capabilities")
	setcap, err := exec.LookPath("setcap")
	if err != nil {
		t.Skip("setcap is not installed")
	}
	w := node.New(t)
	for mode, edits := range modes {
		for name, tt := range map[string]struct {
			capabilities string
			edit         node.Edit
		}{
			"as docker":  {"cap_net_raw+ep", func(*specs.Spec) {}},
			"a user":     {"cap_net_raw+ep", func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000} }},
			"everything": {"cap_net_raw,cap_net_admin+eip", node.Everything},
		} {
			c := w.Container(append(edits, tt.edit, node.Args("/bin/ping", "status"))...)
			path := filepath.Join(c.Rootfs(), "bin", "ping")
			node.Must(t, os.RemoveAll(path))
			node.Must(t, node.CopyFile(filepath.Join(c.Rootfs(), node.ClientPath), path))
			if out, err := exec.Command(setcap, tt.capabilities, path).CombinedOutput(); err != nil {
				t.Fatalf("%s", out)
			}
			o := c.Run()
			if o.Status != 0 {
				t.Errorf("%s, %s: %s", mode, name, o)
				continue
			}
			confined(t, mode+", "+name, o.Results(c)[0])
			c.AwaitEnd()
		}
	}
}

// A program that brings bubblewrap is refused what it asks for, as docker refuses it, unless the node's administrator
// lets it through; then rules for files hold no more, but for policies that insist on them.
func TestNestedSandboxes(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/bwrap")
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		t.Skip("bwrap is not installed")
	}
	settings := map[string]any{"confinement": map[string]any{"nested_sandboxes": true}, "seccomp": map[string]any{"default_profile": false}}
	for name, tt := range map[string]struct {
		w    *node.World
		hard bool
		runs bool
	}{
		"usually":             {node.New(t), false, false},
		"where it is allowed": {node.New(t, settings), false, true},
		"where files matter":  {node.New(t, settings), true, false},
	} {
		policy := "version: 1\nnetwork_policies: {}\nfilesystem_policy: {read_only: [/usr]}\n"
		if tt.hard {
			policy += "landlock: {compatibility: hard_requirement}\n"
		}
		tt.w.Policy("agent", policy)
		c := tt.w.Container(node.Policy("agent"), node.Args("/bin/sh", "-c",
			"bwrap --unshare-all --bind / / /bin/busybox echo inside; echo $? >&2"), func(s *specs.Spec) {
			s.Process.User, s.Process.Capabilities = specs.User{UID: 1000, GID: 1000}, &specs.LinuxCapabilities{}
		})
		for _, file := range append(librariesOf(t, bwrap), bwrap) {
			to := filepath.Join(c.Rootfs(), file)
			node.Must(t, os.MkdirAll(filepath.Dir(to), 0o755))
			node.Must(t, node.CopyFile(file, to))
		}
		o := c.Run()
		if got := o.Stdout == "inside\n"; got != tt.runs {
			t.Errorf("%s: %s", name, o)
		}
		if log := tt.w.AuditLog(c); tt.runs && !strings.Contains(log, "nested_sandboxes is true: files are not protected") {
			t.Errorf("%s: the log has %s", name, log)
		}
		c.AwaitEnd()
	}
}

// A 32-bit program is refused in words. Whoever makes a call of the 32-bit interface all the same is ended by the filter, of
// which the kernel's log tells (internal/confine/denials).
func TestForeignPrograms(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/32-bit program")
	if runtime.GOARCH != "amd64" {
		t.Skip("the program is amd64's")
	}
	w := node.New(t)
	for mode, edits := range modes {
		c := w.Container(append(edits, node.Args("/bin/program"))...)
		header := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 45)...)
		header[16], header[18], header[20] = 2, 3, 1 // an executable for i386
		node.Must(t, os.WriteFile(filepath.Join(c.Rootfs(), "bin/program"), header, 0o755))
		if o := c.Run(); o.Status != 126 || !strings.Contains(o.Stderr, `"/bin/program": it is a 32-bit program`) {
			t.Errorf("%s: %s", mode, o)
		}
		c.AwaitEnd()

		c = w.Container(append(edits, node.Args("/bin/program"))...)
		compileC(t, c, "program", "#include <unistd.h>\nint main(void) { return syscall(0x40000000 | 39) < 0; }\n")
		if o := c.Run(); o.Status != 128+int(unix.SIGSYS) {
			t.Errorf("%s: %s", mode, o)
		}
		c.AwaitEnd()
	}
}

// librariesOf lists the files that a dynamically linked program is loaded with.
func librariesOf(t *testing.T, program string) (files []string) {
	t.Helper()
	out, err := exec.Command("ldd", program).Output()
	node.Must(t, err)
	for field := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(field, "/") {
			files = append(files, field)
		}
	}
	return files
}
