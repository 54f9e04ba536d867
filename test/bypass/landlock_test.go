// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/test/node"
)

// launcherNeeds are the system calls by which the confinement is applied.
var launcherNeeds = []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl", "seccomp"}

// writesData makes the container's program write where no policy lets it, and says
// whether that was done.
func (b *box) writesData(profile *specs.LinuxSeccomp) (o node.Outcome, done bool) {
	b.Spec.Linux.Seccomp = profile
	b.Spec.Process.Args = []string{"/bin/sh", "-c", "echo touched > /data/canary"}
	b.Write()
	o = b.Run()
	_, err := os.Stat(filepath.Join(b.Rootfs(), "data/canary"))
	return o, err == nil
}

// What an engine's seccomp profile keeps from the launcher, with an error or with
// success without effect, is not done without: nothing is executed.
func TestProfileThatRefusesALayer(t *testing.T) {
	for _, call := range launcherNeeds {
		for answer, errno := range map[string]uint{"EPERM": uint(unix.EPERM), "ENOSYS": uint(unix.ENOSYS), "success": 0} {
			if answer == "success" && (call == "landlock_add_rule" || call == "prctl") {
				continue // the one grants less, without the other the low-level runtime fails
			}
			attempt := func(b *box) {
				o, done := b.writesData(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
					{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &errno}}})
				landlock := call != "prctl" && call != "seccomp"
				if b.enforced() && (done || o.Status == 0) {
					b.World.T.Errorf("it ran without a layer: %s", o)
				}
				if b.mode == unboxed && !done && landlock || b.mode == permissive && done != landlock {
					b.World.T.Errorf("it ran: %v: %s", done, o)
				}
			}
			t.Run(call+", "+answer, func(t *testing.T) {
				inEveryBox(t, nothing, attempt)
				withoutBox(t, attempt)
			})
		}
	}
}

// An engine's profile may be older than Landlock and not mention it: what openshell
// needs is added, and everything is in force.
func TestProfileOlderThanLandlock(t *testing.T) {
	attempt := func(b *box) {
		profile, err := seccomp.GetDefaultProfile(b.Spec)
		node.Must(b.World.T, err)
		for i := range profile.Syscalls {
			var names []string
			for _, name := range profile.Syscalls[i].Names {
				switch name {
				case "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp":
				default:
					names = append(names, name)
				}
			}
			profile.Syscalls[i].Names = names
		}
		if o, done := b.writesData(profile); done == b.enforced() {
			b.World.T.Errorf("it wrote: %v: %s", done, o)
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}

// What ls says of a sandbox is what holds its workload.
func TestConfinementIsReported(t *testing.T) {
	abi, err := confine.KernelLandlock()
	node.Must(t, err)
	inEveryBox(t, nothing, func(b *box) {
		b.Start()
		var got sandbox.Confined
		node.Eventually(b.World.T, node.Patience, "what is in force is known", func() bool {
			var list []sandbox.Info
			node.Must(b.World.T, json.Unmarshal([]byte(b.World.Operate("ls", "--json")), &list))
			for _, info := range list {
				for _, c := range info.Containers {
					if c.ID == b.ID && c.Confined != nil {
						got = *c.Confined
						return true
					}
				}
			}
			return false
		})
		want := sandbox.Confined{NoNewPrivs: true, SeccompFilters: 2}
		if b.enforced() {
			want.LandlockABI = max(abi, 0)
		}
		if b.user == "uid 1000" { // the node's default profile
			want.SeccompFilters = 3
		}
		if got != want {
			b.World.T.Errorf("got %+v, want %+v", got, want)
		}
		b.logged("CONFINED", b.ID)
	})
}
