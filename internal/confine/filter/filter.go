// SPDX-License-Identifier: Apache-2.0

// Package filter compiles the seccomp filter that every workload runs under.
//
// It owns the list of system calls that are refused, and turns it into the
// kernel's own form outside of the container, with libseccomp (cgo). Loading it is
// the business of openshell-init (package launch), which needs none of that.
//
// The filter allows by default, because it is stacked on whatever profile the
// engine has configured; it takes away what would undo the sandbox, in every mode
// and whatever privileges the container was given.
package filter

import (
	"fmt"
	"io"
	"os"

	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Compile returns the filter for the running architecture as an array of struct
// sock_filter (linux/filter.h) in native byte order. Refused system calls fail
// with EPERM, or as on a kernel that has not what they ask for. The other system call interfaces of the
// machine (32-bit, x32), whose numbers the list does not cover, kill the process.
func Compile() ([]byte, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp filter: %w", err)
	}
	defer f.Release()
	if err := f.SetBadArchAction(seccomp.ActKillProcess); err != nil {
		return nil, fmt.Errorf("compile seccomp filter: refuse other architectures: %w", err)
	}
	// A binary tree: the kernel runs the filter on every system call whose result
	// depends on its arguments, and a list would cost each of them its length.
	if err := f.SetOptimize(2); err != nil {
		return nil, fmt.Errorf("compile seccomp filter: %w", err)
	}
	for _, r := range rules() {
		if err := r.add(f); err != nil {
			return nil, fmt.Errorf("compile seccomp filter: %s: %w", r, err)
		}
	}
	return export(f)
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
