// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"slices"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/confine/filter"
)

// launcherCalls are the system calls of openshell-init, and of the C library before
// it, as far as this architecture has them. It runs under the engine's profile, which need not allow
// more than the workload's program calls: so the profile is lent what it does not
// mention, and openshell-init, when it is done with them, has the calls refused again
// in the way that the profile would have refused them.
var launcherCalls = filter.Native(
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl", "seccomp",
	"open", "openat", "read", "close", "fcntl", "fcntl64", "readlink", "readlinkat", "write", "exit_group",
	"stat", "stat64", "fstat", "fstat64", "newfstatat", "fstatat64", "statx", "fstatfs", "fstatfs64", "faccessat2",
	"clock_gettime", "clock_gettime64", "nanosleep", "clock_nanosleep", "clock_nanosleep_time64",
	"brk", "arch_prctl", "set_tid_address", "set_robust_list", "set_tls", "set_thread_area", "rseq",
	"prlimit64", "ugetrlimit",
	"getrandom", "mprotect", "mmap", "mmap2", "munmap",
)

// lentCalls returns what of launcherCalls a profile is to be lent. What it refuses
// by name stays refused: openshell-init then starts nothing, and says why.
func lentCalls(profile *specs.LinuxSeccomp) []string {
	if profile == nil || !filter.Refuses(profile.DefaultAction) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(launcherCalls), func(call string) bool {
		return slices.ContainsFunc(profile.Syscalls,
			func(rule specs.LinuxSyscall) bool { return slices.Contains(rule.Names, call) })
	})
}

// lendCalls adds what openshell-init needs to the profile.
func lendCalls(profile *specs.LinuxSeccomp) {
	if lent := lentCalls(profile); len(lent) > 0 {
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{Names: lent, Action: specs.ActAllow})
	}
}

// writeProfile writes the filter that takes back what a profile is lent. The path is
// empty where there is nothing to take back.
func writeProfile(dir, container string, profile *specs.LinuxSeccomp) (path string, err error) {
	lent := lentCalls(profile)
	if len(lent) == 0 {
		return "", nil
	}
	errno := uint(unix.EPERM) // what low-level runtimes take
	if profile.DefaultErrnoRet != nil {
		errno = *profile.DefaultErrnoRet
	}
	program, err := filter.CompileRefusal(lent, profile.DefaultAction, errno)
	if err != nil {
		return "", err
	}
	return confine.WriteProfile(dir, container, program)
}

// restoreSeccomp takes back what an earlier preparation has lent.
func restoreSeccomp(doc document, profile *specs.LinuxSeccomp, lent []string) error {
	if profile == nil || len(lent) == 0 {
		return nil
	}
	profile.Syscalls = slices.DeleteFunc(profile.Syscalls, func(rule specs.LinuxSyscall) bool {
		return rule.Action == specs.ActAllow && slices.Equal(rule.Names, lent)
	})
	return setList(doc, profile.Syscalls, "linux", "seccomp", "syscalls")
}

// addSeccomp puts the engines' common default profile where the spec has none.
// openshell's own filter is stacked on either by openshell-init.
func addSeccomp(spec *specs.Spec, p preparation) error {
	if spec.Linux.Seccomp != nil {
		lendCalls(spec.Linux.Seccomp)
		return nil
	}
	if !p.seccomp {
		return nil
	}
	process := *spec.Process
	if process.Capabilities == nil { // none at all; the profile depends on them
		process.Capabilities = &specs.LinuxCapabilities{}
	}
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &process})
	if err != nil {
		return fmt.Errorf("default seccomp profile: %w", err)
	}
	spec.Linux.Seccomp = profile
	return nil
}
