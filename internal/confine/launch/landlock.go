// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

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

	// The kernel refuses any other right on what is not a directory.
	rightsFile = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSIoctlDev | ll.AccessFSResolveUnix
)

// handledByABI is what each Landlock ABI can restrict, from ABI 1 on. A right
// that is not handled is not restricted, so the highest one is used.
var handledByABI = []landlock.Config{
	landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
	landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
}

// abiLogging is the first ABI with flags for the audit log (landlock_restrict_self(2)).
const abiLogging = 7

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
	return 0, refusedCall("landlock_create_ruleset", err)
}

// filtered reports whether the calling thread is under a seccomp filter, which can
// give any answer in the kernel's place.
func filtered() bool {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err != nil || mode != 0
}

// refusedCall is for a system call that something other than the kernel's own
// abilities keeps from working.
func refusedCall(call string, err error) error {
	return fmt.Errorf("%s: %w: if a seccomp profile of the engine's refuses it, allow landlock_create_ruleset, "+
		"landlock_add_rule, landlock_restrict_self, prctl and seccomp in it", call, err)
}

// rulesetFD is a Landlock ruleset under construction.
type rulesetFD struct {
	fd      int
	handled uint64
	flags   int      // for landlock_restrict_self
	procs   []string // the container's mounts with processes' files, once known
}

// openRuleset builds the kernel's ruleset for the calling process: its working
// directory and what it has open are part of it. It returns nil where the kernel
// has no Landlock and r does not require it. What keeps a process from the
// Landlock that the kernel has is an error, whatever r says.
//
// Processes of a sandbox are not scoped from each other: an exec session must be
// able to signal the main process.
func openRuleset(r *Ruleset, programs []string) (*rulesetFD, error) {
	abi, err := LandlockABI()
	switch {
	case err != nil && r.KernelABI != NoLandlock:
		return nil, fmt.Errorf("the kernel has landlock ABI %d, but not for this container: %w", r.KernelABI, err)
	case err != nil && r.Compatibility == HardRequirement:
		return nil, fmt.Errorf("landlock compatibility is %s: %w", HardRequirement, ErrNoLandlock)
	case err != nil:
		return nil, nil
	case abi < r.KernelABI:
		return nil, fmt.Errorf("the kernel has landlock ABI %d, but ABI %d for this container", r.KernelABI, abi)
	}
	set := &rulesetFD{handled: uint64(handledByABI[min(abi, len(handledByABI))-1].HandledAccessFS)}
	if abi >= abiLogging {
		// Without it the audit log has the denials of openshell-init only.
		set.flags = ll.FlagRestrictSelfLogNewExecOn
	}
	set.fd, err = ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: set.handled}, 0)
	if err != nil {
		return nil, refusedCall("landlock_create_ruleset", err)
	}
	if set.fd <= unix.Stderr { // these are open: Go sees to it
		return nil, refusedCall("landlock_create_ruleset", errors.New("it succeeds without effect"))
	}
	if err := set.fill(r, programs); err != nil {
		set.close()
		return nil, err
	}
	return set, nil
}

func (s *rulesetFD) close() { unix.Close(s.fd) }

func (s *rulesetFD) fill(r *Ruleset, programs []string) error {
	for _, list := range []struct {
		paths  []string
		rights uint64
	}{
		{r.ReadOnly, rightsRead},
		{r.ReadWrite, rightsRead | rightsWrite},
	} {
		for _, p := range list.paths {
			required := r.Compatibility == HardRequirement && !slices.Contains(r.Optional, p)
			if err := s.allowPath(p, list.rights, required); err != nil {
				return err
			}
		}
	}
	if r.IncludeWorkdir {
		if err := s.allowWorkdir(); err != nil {
			return err
		}
	}
	for _, program := range programs {
		if err := s.allowPath(program, rightsRead, false); err != nil {
			return err
		}
	}
	return s.allowInherited()
}

// allowPath grants rights on a path. One that cannot be opened is an error when
// it is required and is left out otherwise, which grants less and not more.
func (s *rulesetFD) allowPath(p string, rights uint64, required bool) error {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		if required {
			return fmt.Errorf("landlock compatibility is %s: open %q: %w", HardRequirement, p, err)
		}
		return nil
	}
	defer unix.Close(fd)
	if rights&rightsWrite != 0 {
		if err := s.checkWritable(fd); err != nil {
			return fmt.Errorf("landlock path %q: %w", p, err)
		}
	}
	if err := s.allow(fd, rights); err != nil {
		return fmt.Errorf("landlock path %q: %w", p, err)
	}
	return nil
}

// allowWorkdir grants the working directory, unless that would grant everything,
// or processes' memory: it is the image's choice.
func (s *rulesetFD) allowWorkdir() error {
	fd, err := unix.Open(".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		return nil // as /root is for another user: then there is nothing to grant
	}
	if err != nil {
		return fmt.Errorf("open the working directory: %w", err)
	}
	defer unix.Close(fd)
	if err := s.checkWritable(fd); errors.Is(err, errTooMuch) {
		return nil
	} else if err != nil {
		return fmt.Errorf("landlock working directory: %w", err)
	}
	if err := s.allow(fd, rightsRead|rightsWrite); err != nil {
		return fmt.Errorf("landlock working directory: %w", err)
	}
	return nil
}

// allowInherited lets the workload open what it was given open anew, as through
// /dev/stdout, in the way it is open already: its standard streams, and what an
// engine keeps for it (--preserve-fds). Pipes and sockets are outside of what
// Landlock restricts; a directory would grant all below it.
func (s *rulesetFD) allowInherited() error {
	for _, fd := range inherited() {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue // closed
		}
		device := st.Mode&unix.S_IFMT == unix.S_IFCHR
		if !device && st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return fmt.Errorf("get flags of descriptor %d: %w", fd, err)
		}
		err = s.allow(fd, streamRights(flags, device))
		// EBADFD: a file of no mounted filesystem, such as a memfd, is not restricted.
		if err != nil && !errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("landlock descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// inherited are the descriptors that the workload will have: those that are not
// closed when it is executed. Without /proc they are the standard streams.
func inherited() []int {
	list := []int{unix.Stdin, unix.Stdout, unix.Stderr}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return list
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= unix.Stderr {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			list = append(list, fd)
		}
	}
	return list
}

// streamRights returns the rights that an open file description has shown already.
func streamRights(flags int, device bool) uint64 {
	var rights uint64
	switch {
	case flags&unix.O_PATH != 0:
		return 0
	case flags&unix.O_ACCMODE == unix.O_RDONLY:
		rights = ll.AccessFSReadFile
	case flags&unix.O_ACCMODE == unix.O_WRONLY:
		rights = ll.AccessFSWriteFile | ll.AccessFSTruncate
	default:
		rights = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	}
	if device {
		rights |= ll.AccessFSIoctlDev // job control and window size of a terminal
	}
	return rights
}

// allow grants rights on what fd refers to: those that the kernel handles, and
// that such a file can have.
func (s *rulesetFD) allow(fd int, rights uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights &= s.handled
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsFile
	}
	if rights == 0 {
		return nil // the kernel calls a rule without rights an error
	}
	err := ll.LandlockAddPathBeneathRule(s.fd, &ll.PathBeneathAttr{ParentFd: fd, AllowedAccess: rights}, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) { // nothing that the kernel says of a rule
		return refusedCall("landlock_add_rule", err)
	}
	return err
}

// restrict confines the calling thread, for good; no_new_privs must be set.
func (s *rulesetFD) restrict() error {
	if ll.LandlockRestrictSelf(-1, 0) == nil { // the kernel says EBADF
		return refusedCall("landlock_restrict_self", errors.New("it succeeds without effect"))
	}
	if err := ll.LandlockRestrictSelf(s.fd, uint32(s.flags)); err != nil {
		return refusedCall("landlock_restrict_self", err)
	}
	return nil
}
