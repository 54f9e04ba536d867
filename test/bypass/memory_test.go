// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/test/node"
)

// memoryAttempt makes an attempt that says what it came to: only the processes
// themselves see their memory.
func (b *box) memoryAttempt(what string, o node.Outcome, success string, through bool) {
	b.World.T.Helper()
	if strings.Contains(o.Stdout, success) != through {
		b.World.T.Errorf("%s: success is to be %v: %s", what, through, o)
	}
}

// A program cannot write to the memory of another, and so act as that, where the
// policy is enforced. In permissive mode one of the same user can (docs/security.md,
// known limits), which is logged. It can read it in both, but for the system calls
// that are made for it.
func TestMemoryOfOtherProcesses(t *testing.T) {
	attempt := func(b *box) {
		b.Start()
		for method, a := range map[string]struct {
			success string
			through bool
		}{
			"write":             {"memory is TAMPERED!", !b.enforced()},
			"process_vm_writev": {"memory is TAMPERED!", b.mode == unboxed},
			"ptrace":            {"memory is TAMPERED!", b.mode == unboxed},
			"read":              {"read untouched", true},
			"process_vm_readv":  {"read untouched", b.mode == unboxed},
		} {
			b.memoryAttempt(method, b.Exec(attemptPath, "sibling", method), a.success, a.through)
		}
		if b.mode == permissive {
			// Only where both processes still run when the supervisor looks.
			node.Eventually(b.World.T, 2*node.Patience, "a line of the log that tells of it", func() bool {
				return b.inLog(attemptPath, "wrote to the memory of a process") || b.Exec(attemptPath, "sibling", "write").Status < 0
			})
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}

// Landlock keeps what is executed in a container later from the memory of what the
// container was started with.
func TestMemoryAcrossSessions(t *testing.T) {
	attempt := func(b *box) {
		b.Spec.Process.Args = []string{"/bin/sh", "-c", "sleep 1000 | " + attemptPath + " victim"}
		b.Write()
		b.Start()
		node.Eventually(b.World.T, node.Patience, "the victim is ready", func() bool { return strings.Contains(b.Output(), "ready") })
		const find = `for p in /proc/[0-9]*; do case "$(tr '\0' ' ' < $p/cmdline)" in "` + attemptPath + ` victim ") exec ` + attemptPath + ` memory read ${p#/proc/};; esac; done`
		b.memoryAttempt("read from an exec", b.Exec("/bin/sh", "-c", find), "read untouched", !b.enforced())
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}

// A grant of a directory is not one of /proc, whatever the image makes of the
// directory's name.
func TestGrantThatLeadsToMemory(t *testing.T) {
	for name, target := range map[string]string{"proc": "/proc", "root": "/"} {
		t.Run(name, func(t *testing.T) {
			attempt := func(b *box) {
				data := filepath.Join(b.Rootfs(), "data")
				node.Must(b.World.T, os.Remove(data))
				node.Must(b.World.T, os.Symlink(target, data))
				b.Spec.Process.Args = []string{attemptPath, "sibling", "write"}
				b.Write()
				b.memoryAttempt("write", b.Run(), "memory is TAMPERED!", !b.enforced())
			}
			inEveryBox(t, "version: 1\nfilesystem_policy: {read_write: [/data]}\n", attempt)
			withoutBox(t, attempt)
		})
	}
}
