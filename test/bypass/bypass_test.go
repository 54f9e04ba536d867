// SPDX-License-Identifier: Apache-2.0

// Package bypass_test makes real attempts to get past a sandbox, from inside real
// containers, and judges them from outside: by what the fake internet (the canary)
// received and by what changed on the host. What the attempt itself says is only
// looked at where nothing outside can tell.
//
// An attempt is a function of a box, which is one sandbox. [inEveryBox] calls it in
// six: for root with every capability and nothing of what an engine adds (no
// seccomp profile, no masked or read-only paths, /sys writable), for that root of a
// user namespace, which owns the sandbox's network namespace, and for user 1000 as
// docker makes it; each enforcing and permissive. [withoutBox] calls it in a
// container of the low-level runtime alone, where it must succeed: an attempt that
// fails everywhere proves nothing. Leave that out only where success would harm the
// machine.
//
//	func TestSomething(t *testing.T) {
//		attempt := func(b *box) {
//			b.guard("/proc/sys/kernel/core_pattern") // what the host must keep
//			b.Spec.Hostname = "x"; b.Write()         // or change the image, in b.Rootfs()
//			b.Start()
//			o := b.Exec(attemptPath, "something")    // a subcommand of ./attempt
//			b.judge("something", o, !b.enforced(), "tcp echo.example")
//		}
//		inEveryBox(t, policy, attempt)
//		withoutBox(t, attempt)
//	}
//
// What a shell script or test/client can do needs no more than b.Exec or b.Client.
// Other things are subcommands of the program in ./attempt, one file each. Files of
// tests are named after what they attack.
package bypass_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/node"
)

func TestMain(m *testing.M) { node.Main(m, "./attempt") }

// attemptPath is where the program in ./attempt is in every box.
const attemptPath = "/usr/bin/attempt"

// box is one sandbox that attempts are made in. Its container is prepared but not
// started.
type box struct {
	*node.Container
	user string // one of users
	mode string // enforcing, permissive or unboxed
}

const (
	enforcing  = "enforcing"
	permissive = "permissive"
	unboxed    = "without a sandbox"
)

// nothing is a policy that allows nothing that the baseline does not.
const nothing = "version: 1\nnetwork_policies: {}\n"

// users are whom containers are made for.
var users = map[string]node.Edit{"root": almighty, mapped: almightyMapped, "uid 1000": ordinary}

// mapped is root of a user namespace.
const mapped = "mapped root"

func almightyMapped(s *specs.Spec) {
	almighty(s)
	node.UserNamespace("")(s)
}

// almighty is what docker run --privileged gives, but for the host's devices.
func almighty(s *specs.Spec) {
	node.Everything(s)
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	for i, m := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool { return m.Destination == "/sys" && o == "ro" })
	}
}

// ordinary is what docker run --user 1000:1000 gives.
func ordinary(s *specs.Spec) {
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER",
		"CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}}
	s.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// inEveryBox makes an attempt in each of the six boxes, under a policy.
func inEveryBox(t *testing.T, policy string, attempt func(b *box)) {
	for user, edit := range users {
		for mode, edits := range map[string][]node.Edit{enforcing: nil, permissive: {node.Permissive}} {
			t.Run(user+", "+mode, func(t *testing.T) {
				t.Parallel()
				// None of the node's own either: what holds, holds by openshell's.
				w := node.New(t, map[string]any{"seccomp": map[string]any{"default_profile": user == "uid 1000"}})
				w.Policy("bypass", policy)
				attempt(newBox(w, user, mode, append(edits, node.Policy("bypass"), edit)...))
			})
		}
	}
}

// withoutBox makes an attempt as root in a container that is no sandbox.
func withoutBox(t *testing.T, attempt func(b *box)) {
	t.Run(unboxed, func(t *testing.T) {
		t.Parallel()
		w := node.New(t).Plain()
		b := newBox(w, "root", unboxed, node.NetnsPath(w.Net), almighty)
		// A sandbox answers in the place of any name server.
		path := filepath.Join(b.Rootfs(), "etc/resolv.conf")
		node.Must(t, os.Remove(path))
		node.Must(t, os.WriteFile(path, []byte("nameserver "+w.Net.DNS().Addr().String()+"\n"), 0o644))
		attempt(b)
	})
}

func newBox(w *node.World, user, mode string, edits ...node.Edit) *box {
	b := &box{w.Container(edits...), user, mode}
	for _, dir := range []string{"tmp", "data"} {
		node.Must(w.T, os.Chmod(filepath.Join(b.Rootfs(), dir), 0o777|os.ModeSticky))
	}
	if user == mapped {
		b.Shift()
	}
	return b
}

// enforced reports whether the policy decides in this box.
func (b *box) enforced() bool { return b.mode == enforcing }

// heard lists what the internet received: "tcp HOST BYTES", "udp HOST BYTES",
// "METHOD HOST TARGET" and "query NAME TYPE".
func (b *box) heard() []string {
	var list []string
	for _, r := range b.World.Net.Requests() {
		if r.Method == "" {
			list = append(list, fmt.Sprintf("%s %s %d", r.Proto, r.Origin, r.Body))
		} else {
			list = append(list, r.Method+" "+r.Origin+" "+r.Target)
		}
	}
	for _, q := range b.World.Net.Queries() {
		list = append(list, "query "+strings.ToLower(q.Name)+" "+q.Type)
	}
	return list
}

// judge fails unless the internet received something that begins with each of
// want, where the attempt was to come through, or nothing at all, where it was not.
func (b *box) judge(what string, o node.Outcome, through bool, want ...string) {
	b.World.T.Helper()
	heard := b.heard()
	if !through {
		if len(heard) > 0 {
			b.World.T.Errorf("%s came through: %q\n%s", what, heard, o)
		}
		return
	}
	for _, w := range want {
		if !slices.ContainsFunc(heard, func(h string) bool { return strings.HasPrefix(h, w) }) {
			b.World.T.Errorf("%s did not come through: %q has no %q\n%s", what, heard, w, o)
		}
	}
}

// logged waits until a line of the sandbox's log has all words.
func (b *box) logged(words ...string) {
	b.World.T.Helper()
	if b.mode == unboxed {
		return
	}
	node.Eventually(b.World.T, node.Patience, fmt.Sprintf("a line of the log with %q", words), func() bool { return b.inLog(words...) })
}

// inLog reports whether a line of the sandbox's log has all words by now.
func (b *box) inLog(words ...string) bool {
	for line := range node.Lines(b.World.AuditLog(b.Container)) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

// guard fails the test if a file of the host, or a value below /proc/sys, has
// changed when it ends; without a sandbox, if it has not. It is put back.
func (b *box) guard(path string) {
	t := b.World.T
	t.Helper()
	before, err := os.ReadFile(path)
	node.Must(t, err)
	t.Cleanup(func() {
		after, err := os.ReadFile(path)
		changed := err != nil || !bytes.Equal(before, after)
		if changed != (b.mode == unboxed) {
			t.Errorf("%s of the host: changed is %v: %q (%v)", path, changed, after, err)
		}
		if changed {
			node.Must(t, os.WriteFile(path, before, 0o600))
		}
	})
}

// hostFile makes a file of the host that is guarded, in a directory of its own.
func (b *box) hostFile(text string) string {
	b.World.T.Helper()
	path := filepath.Join(b.World.T.TempDir(), "canary")
	node.Must(b.World.T, os.WriteFile(path, []byte(text), 0o600))
	b.guard(path)
	return path
}
