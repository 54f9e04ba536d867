// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// rule refuses a system call, always or when all conditions hold.
type rule struct {
	// nr is the number on the running architecture. Numbers come from x/sys and
	// not from libseccomp, which may be older than the system call.
	nr    int
	errno unix.Errno
	when  []condition
}

func (r rule) String() string { return fmt.Sprintf("system call %d", r.nr) }

// condition holds when the argument's bits under mask equal value.
type condition struct {
	argument    uint // counted from 0
	mask, value uint64
}

// lower32 is for arguments that the kernel takes as an int. It ignores the upper
// half of the register, so a filter that looks at it can be walked around.
const lower32 = 0xffffffff

// isInt holds when an int argument has the value.
func isInt(argument uint, value int) condition {
	return condition{argument, lower32, uint64(value)}
}

// hasFlag holds when all bits of flag are set.
func hasFlag(argument uint, flag uint64) condition {
	return condition{argument, flag, flag}
}

// mounts are the system calls that change what is mounted where: the container's
// view of the filesystem is part of the sandbox.
var mounts = []int{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_MOUNT_SETATTR,
}

// refused are the system calls that no workload gets.
var refused = []int{
	// Joining namespaces that were not given.
	unix.SYS_SETNS,
	// Files by inode number, past every mount and path.
	unix.SYS_OPEN_BY_HANDLE_AT,
	// Other processes' memory, registers and descriptors: a way to borrow another
	// binary's identity, which network rules are bound to.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
	// Kernel interfaces with a history of privilege escalation.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	// Its operations are not system calls, so that no filter sees them.
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// Code in the kernel, and another kernel.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
}

// allowedFamilies are the address families of sockets that a workload gets: the
// rest do not pass through the network namespace, see below TCP and UDP, or are
// kernel interfaces that few need (AF_ALG). AF_UNSPEC is none at all.
var allowedFamilies = []int{unix.AF_UNSPEC, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// otherFamilies returns conditions of which one holds for each other family,
// known or to come. "None of these" is said by blocks of numbers that have their
// upper bits in common, since only masked comparisons for equality exist.
func otherFamilies() []condition {
	const bits = 5 // that tell the allowed ones apart
	var list []condition
	for bit := bits; bit < 32; bit++ {
		list = append(list, hasFlag(0, 1<<bit))
	}
	var cover func(first, size int)
	cover = func(first, size int) {
		allowed := func(f int) bool { return f >= first && f < first+size }
		switch {
		case !slices.ContainsFunc(allowedFamilies, allowed):
			list = append(list, condition{0, (1<<bits - 1) &^ uint64(size-1), uint64(first)})
		case size > 1:
			cover(first, size/2)
			cover(first+size/2, size/2)
		}
	}
	cover(0, 1<<bits)
	return list
}

// maxNetlinkBits is the width of the largest netlink protocol: the kernel takes
// none from MAX_LINKS (linux/netlink.h), which is 32, on.
const maxNetlinkBits = 5

// sockTypeMask is where a socket's type is among its flags (SOCK_TYPE_MASK in
// linux/net.h).
const sockTypeMask = 0xf

// loudRules are those of which the kernel is to write a record in its audit log: what
// they refuse, programs do not expect to be refused.
func loudRules(o Options) []rule {
	var list []rule
	refuse := func(errno unix.Errno, nr int, when ...condition) {
		list = append(list, rule{nr: nr, errno: errno, when: when})
	}
	for _, nr := range refused {
		refuse(unix.EPERM, nr)
	}
	if !o.NestedSandboxes {
		for _, nr := range mounts {
			refuse(unix.EPERM, nr)
		}
		// A user namespace gives every capability inside it.
		refuse(unix.EPERM, unix.SYS_CLONE, hasFlag(cloneFlags(), unix.CLONE_NEWUSER))
		refuse(unix.EPERM, unix.SYS_UNSHARE, hasFlag(0, unix.CLONE_NEWUSER))
	}
	// It gives a process another executable's name, and so its identity.
	refuse(unix.EINVAL, unix.SYS_PRCTL, isInt(0, unix.PR_SET_MM))
	// Filters of the workload's own add to this one. But with a listener on one a
	// process could answer for another, and make it hold its descriptors.
	refuse(unix.EINVAL, unix.SYS_SECCOMP, isInt(0, unix.SECCOMP_SET_MODE_FILTER),
		hasFlag(1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER))
	return list
}

// quietRules refuse what programs ask for though they know how to go on without. The
// errors are those of a kernel without the system call, the family or the protocol.
// Whatever neither list names is allowed here, among them memfd_create, which
// CUDA, V8 and Java need.
func quietRules() []rule {
	var list []rule
	refuse := func(errno unix.Errno, nr int, when ...condition) {
		list = append(list, rule{nr: nr, errno: errno, when: when})
	}
	// Its flags are behind a pointer, out of a filter's sight; the C libraries fall
	// back to clone, whose flags are not.
	refuse(unix.ENOSYS, unix.SYS_CLONE3)
	for _, nr := range []int{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		for _, other := range otherFamilies() {
			refuse(unix.EAFNOSUPPORT, nr, other)
		}
		// The old name of AF_PACKET.
		refuse(unix.EAFNOSUPPORT, nr, isInt(0, unix.AF_INET), condition{1, sockTypeMask, unix.SOCK_PACKET})
		// NETLINK_ROUTE (0) only, which lists interfaces and addresses. "Not 0" is said
		// bit by bit because a masked comparison for inequality does not exist.
		for bit := range maxNetlinkBits {
			refuse(unix.EPROTONOSUPPORT, nr, isInt(0, unix.AF_NETLINK), hasFlag(2, 1<<bit))
		}
	}
	return list
}

// cloneFlags returns which argument of clone has the flags (clone(2), "C
// library/kernel differences").
func cloneFlags() uint {
	if runtime.GOARCH == "s390x" {
		return 1
	}
	return 0
}
