// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Access rights by what a policy grants; landlock(7) explains each.
const (
	rightsRead = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSReadDir

	rightsWrite = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRefer | ll.AccessFSIoctlDev |
		ll.AccessFSResolveUnix |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeChar | ll.AccessFSMakeDir | ll.AccessFSMakeReg |
		ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeBlock | ll.AccessFSMakeSym
)

// handledByABI is what each Landlock ABI can restrict, from ABI 1 on. A right
// that is not handled is not restricted, so the highest one is used.
var handledByABI = []landlock.Config{
	landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
	landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
}

// abiLogging is the first ABI with flags for the audit log (landlock_restrict_self(2)).
const abiLogging = 7

// handled returns which rights the ABI's kernel is to restrict, and the flags for
// landlock_restrict_self.
func handled(abi int) (rights uint64, flags int) {
	if abi >= abiLogging {
		// Without it the audit log has the denials of openshell-init only.
		flags = ll.FlagRestrictSelfLogNewExecOn
	}
	return uint64(handledByABI[min(abi, len(handledByABI))-1].HandledAccessFS), flags
}

// NoLandlock is the KernelABI of a Ruleset for a kernel that has no Landlock. It is
// not zero, so that it has to be said.
const NoLandlock = -1

// ErrNoLandlock says that the kernel itself has no Landlock, or does not use it.
var ErrNoLandlock = errors.New("the kernel has no landlock")

// LandlockABI returns the version of the kernel's Landlock interface, at least 1.
// The error says why there is none for the calling process, and the version is
// 0 then. It is ErrNoLandlock where that is certainly the kernel's doing.
func LandlockABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case err == nil && abi > 0:
		return abi, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("%w: add it to the lsm= boot parameter", ErrNoLandlock)
	case errors.Is(err, unix.ENOSYS) && !filtered():
		return 0, fmt.Errorf("%w: use one with CONFIG_SECURITY_LANDLOCK", ErrNoLandlock)
	case err == nil:
		err = errors.New("it succeeds without effect")
	}
	return 0, fmt.Errorf("landlock_create_ruleset: %w: a seccomp profile refuses it", err)
}

// filtered reports whether the calling thread is under a seccomp filter, which can
// give any answer in the kernel's place.
func filtered() bool {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err != nil || mode != 0
}

// KernelLandlock returns the version of the kernel's Landlock interface, or
// NoLandlock. It has to be asked outside the container. Where the kernel's own
// answer cannot be had, that is an error.
func KernelLandlock() (int, error) {
	abi, err := LandlockABI()
	if errors.Is(err, ErrNoLandlock) {
		return NoLandlock, nil
	}
	return abi, err
}
