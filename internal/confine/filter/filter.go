// SPDX-License-Identifier: Apache-2.0

// Package filter compiles the seccomp filters that every workload runs under.
//
// It owns the list of system calls that are refused, and turns it into the
// kernel's own form outside of the container, with libseccomp (cgo). Loading it is
// the business of openshell-init.
//
// The filters allow by default, because they are stacked on whatever profile the
// engine has configured; they take away what would undo the sandbox, in every mode
// and whatever privileges the container was given.
package filter

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Options are what a node's administrator decides.
type Options struct {
	// NestedSandboxes lets user namespaces through, and what is mounted in them.
	NestedSandboxes bool
}

// Programs are filters, each an array of struct sock_filter (linux/filter.h) in
// native byte order. Both are to be loaded.
type Programs struct {
	Loud  []byte // with SECCOMP_FILTER_FLAG_LOG
	Quiet []byte
}

// Compile returns the filters for the running architecture. Refused system calls
// fail with EPERM, or as on a kernel that has not what they ask for. The other
// system call interfaces of the machine (32-bit, x32), whose numbers the lists do
// not cover, kill the process, which the kernel logs too.
func Compile(o Options) (p Programs, err error) {
	if p.Loud, err = compile(loudRules(o)); err == nil {
		p.Quiet, err = compile(quietRules())
	}
	if err != nil {
		return Programs{}, fmt.Errorf("compile seccomp filter: %w", err)
	}
	return p, nil
}

func compile(rules []rule) ([]byte, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	if err := f.SetBadArchAction(seccomp.ActKillProcess); err != nil {
		return nil, fmt.Errorf("refuse other architectures: %w", err)
	}
	// A binary tree: the kernel runs the filter on every system call whose result
	// depends on its arguments, and a list would cost each of them its length.
	if err := f.SetOptimize(2); err != nil {
		return nil, err
	}
	for _, r := range rules {
		if err := r.add(f); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
	}
	return export(f)
}

// CompileRefusal returns a filter that refuses system calls by name in the way that
// an engine's profile refuses whatever it does not allow, and allows all others.
func CompileRefusal(calls []string, action specs.LinuxSeccompAction, errno uint) ([]byte, error) {
	refusal, ok := refusals[action]
	if !ok {
		return nil, fmt.Errorf("compile seccomp filter: a profile's default %s cannot be repeated", action)
	}
	if action == specs.ActErrno {
		refusal = refusal.SetReturnCode(int16(errno))
	}
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp filter: %w", err)
	}
	defer f.Release()
	for _, name := range calls {
		call, err := seccomp.GetSyscallFromName(name)
		if err == nil {
			err = f.AddRule(call, refusal)
		}
		if err != nil {
			return nil, fmt.Errorf("compile seccomp filter: %s: %w", name, err)
		}
	}
	return export(f)
}

// Native returns those of the system calls that the running architecture has.
func Native(calls ...string) []string {
	return slices.DeleteFunc(calls, func(name string) bool {
		call, err := seccomp.GetSyscallFromName(name)
		return err != nil || call < 0 // libseccomp's numbers for what other architectures have
	})
}

// refusals are the actions by which a profile refuses a system call without anybody
// else who would have to be asked.
var refusals = map[specs.LinuxSeccompAction]seccomp.ScmpAction{
	specs.ActErrno: seccomp.ActErrno, specs.ActTrap: seccomp.ActTrap,
	specs.ActKill: seccomp.ActKillThread, specs.ActKillThread: seccomp.ActKillThread,
	specs.ActKillProcess: seccomp.ActKillProcess,
}

// Refuses reports whether an action is one that CompileRefusal takes.
func Refuses(action specs.LinuxSeccompAction) bool {
	_, ok := refusals[action]
	return ok
}

func (r rule) add(f *seccomp.ScmpFilter) error {
	action := seccomp.ActErrno.SetReturnCode(int16(r.errno))
	if len(r.when) == 0 {
		return f.AddRuleExact(seccomp.ScmpSyscall(r.nr), action)
	}
	conditions := make([]seccomp.ScmpCondition, len(r.when))
	for i, c := range r.when {
		var err error
		conditions[i], err = seccomp.MakeCondition(c.argument, seccomp.CompareMaskedEqual, c.mask, c.value)
		if err != nil {
			return err
		}
	}
	return f.AddRuleConditionalExact(seccomp.ScmpSyscall(r.nr), action, conditions)
}

// export reads the compiled program back through a file in memory, which is how
// libseccomp before 2.6 hands it out.
func export(f *seccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	file := os.NewFile(uintptr(fd), "seccomp-filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	program, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	return program, nil
}

// Name returns what a system call is called on the running architecture, or what it is
// where it is one of another.
func Name(auditArch uint32, number int) string {
	if auditArch != auditArchs[runtime.GOARCH] || number&x32Bit != 0 {
		return fmt.Sprintf("%d of another architecture (a 32-bit program's)", number&^x32Bit)
	}
	if name, err := seccomp.ScmpSyscall(number).GetName(); err == nil {
		return name
	}
	return fmt.Sprint(number)
}

// x32Bit marks the calls of x32, whose architecture is that of amd64 (__X32_SYSCALL_BIT in asm/unistd.h).
const x32Bit = 1 << 30

// auditArchs are the AUDIT_ARCH_* of linux/audit.h.
var auditArchs = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "s390x": unix.AUDIT_ARCH_S390X,
	"ppc64le": unix.AUDIT_ARCH_PPC64LE, "riscv64": unix.AUDIT_ARCH_RISCV64,
}
