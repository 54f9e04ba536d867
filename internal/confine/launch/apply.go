// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Apply confines the calling thread, for good, with the files in dir: Landlock
// unless the mode is permissive, then the seccomp filter. programs are the files it
// is going to execute, which Landlock then allows wherever they are: whoever started
// the container chose them. Whatever is missing or
// not understood is an error, after which nothing may be executed.
//
// Both hold for one thread only, and pass to what it executes, so the caller must
// have locked its goroutine to the thread (runtime.LockOSThread) and execute from
// there. Other threads end with the execve(2).
func Apply(dir string, programs ...string) error {
	confinement, err := readConfinement(dir)
	if err != nil {
		return err
	}
	if confinement.Observed {
		awaitObserver(dir)
	}
	filter, err := readFilter(dir)
	if err != nil {
		return err
	}
	var ruleset *rulesetFD
	if confinement.Landlock != nil {
		if ruleset, err = openRuleset(confinement.Landlock, programs); err != nil {
			return err
		}
	}
	if ruleset != nil {
		defer ruleset.close()
	}
	// Both Landlock and seccomp demand it of a process without CAP_SYS_ADMIN.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return refusedCall("set no_new_privs with prctl", err)
	}
	if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || set != 1 {
		return refusedCall("set no_new_privs with prctl", errors.New("it succeeds without effect"))
	}
	if ruleset != nil {
		if err := ruleset.restrict(); err != nil {
			return err
		}
	}
	// Last, so that the filter need not allow any of the calls above.
	return loadFilter(filter)
}

// loadFilter stacks a filter on those the thread has already; the strictest
// answer of all counts (seccomp(2)).
func loadFilter(filter []byte) error {
	program := make([]unix.SockFilter, len(filter)/instructionSize)
	for i := range program {
		b := filter[i*instructionSize:]
		program[i] = unix.SockFilter{
			Code: binary.NativeEndian.Uint16(b),
			Jt:   b[2],
			Jf:   b[3],
			K:    binary.NativeEndian.Uint32(b[4:]),
		}
	}
	// The kernel says EFAULT. A profile can give success as well as an error.
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0); errno == 0 {
		return refusedCall("load the seccomp filter", errors.New("it succeeds without effect"))
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(program)
	if errno == unix.EPERM || errno == unix.ENOSYS {
		return refusedCall("load the seccomp filter", errno)
	}
	if errno != 0 {
		return fmt.Errorf("load the seccomp filter: %w", errno)
	}
	return nil
}
