// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/confine"
)

// probeVariable makes this test binary the workload.
const probeVariable = "OPENSHELL_INIT_TEST_PROBE"

// runProbe does what a workload would, prints what came of it, and exits.
func runProbe(name string) {
	args := os.Args[1:]
	switch name {
	case "status":
		data, err := os.ReadFile("/proc/self/status")
		fmt.Print(string(data))
		exitOn(err)
	case "cmdline":
		data, err := os.ReadFile("/proc/self/cmdline")
		fmt.Print(string(data))
		exitOn(err)
	case "environ":
		data, err := os.ReadFile("/proc/self/environ")
		fmt.Print(string(data))
		exitOn(err)
	case "pid":
		fmt.Print(os.Getpid())
	case "exit":
		code, err := strconv.Atoi(args[0])
		exitOn(err)
		os.Exit(code)
	case "sleep":
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "files":
		for _, operation := range args {
			fmt.Println(errnoName(fileOperation(operation)))
		}
	case "syscall":
		for _, name := range args {
			fmt.Println(errnoName(systemCalls[name]()))
		}
	case "exec":
		os.Unsetenv(probeVariable)
		exitOn(unix.Exec(args[0], args, os.Environ()))
	case "exec-with-soft-limit":
		var limit syscall.Rlimit
		exitOn(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		limit.Cur = 123
		exitOn(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
		os.Unsetenv(probeVariable)
		exitOn(unix.Exec(args[0], args, os.Environ()))
	case "exec-without-call": // number, error, program and its arguments
		exitOn(refuseCall(args[0], args[1]))
		os.Setenv(probeVariable, "pid")
		exitOn(unix.Exec(args[2], args[2:], os.Environ()))
	default:
		exitOn(fmt.Errorf("no probe %q", name))
	}
	os.Exit(0)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

// errnoName is "ok" or the name of the error's number.
func errnoName(err error) string {
	if err == nil || errors.Is(err, unix.Errno(0)) {
		return "ok"
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// fileOperation does what "verb path [path]" says.
func fileOperation(operation string) error {
	words := strings.Fields(operation)
	path, last := words[1], words[len(words)-1]
	open := func(flags int) error {
		f, err := os.OpenFile(path, flags, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	switch words[0] {
	case "read":
		return open(os.O_RDONLY)
	case "list":
		_, err := os.ReadDir(path)
		return err
	case "write":
		return open(os.O_WRONLY)
	case "create":
		return open(os.O_WRONLY | os.O_CREATE | os.O_EXCL)
	case "truncate":
		return os.Truncate(path, 0)
	case "mkdir":
		return os.Mkdir(path, 0o755)
	case "remove":
		return os.Remove(path)
	case "rename":
		return os.Rename(path, last)
	case "link":
		return os.Link(path, last)
	case "symlink":
		return os.Symlink(path, last)
	case "ioctl":
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN)
		return err
	case "kill":
		pid, err := strconv.Atoi(path)
		if err != nil {
			return err
		}
		return unix.Kill(pid, 0)
	default:
		return fmt.Errorf("no operation %q", words[0])
	}
}

func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return errno
}

// systemCalls have arguments with which the kernel itself would fail too, but not
// with the filter's answer, unless they are harmless.
var systemCalls = map[string]func() error{
	"mount":            func() error { return raw(unix.SYS_MOUNT, 0, 0, 0, 0, 1) },
	"umount2":          func() error { return raw(unix.SYS_UMOUNT2, 0, 0) },
	"fsopen":           func() error { return raw(unix.SYS_FSOPEN, 0, 0) },
	"open_tree":        func() error { return raw(unix.SYS_OPEN_TREE, 0, 0, 0) },
	"setns":            func() error { return raw(unix.SYS_SETNS, ^uintptr(0), 0) },
	"unshare newuser":  func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"clone newuser":    func() error { return raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS) },
	"unshare files":    func() error { return unix.Unshare(unix.CLONE_FILES) },
	"ptrace":           func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_PEEKTEXT, ^uintptr(0)) },
	"process_vm_readv": func() error { return raw(unix.SYS_PROCESS_VM_READV, ^uintptr(0)) },
	"pidfd_getfd":      func() error { return raw(unix.SYS_PIDFD_GETFD, ^uintptr(0), 0) },
	"pidfd_open":       func() error { _, err := unix.PidfdOpen(os.Getpid(), 0); return err },
	"pidfd_send_signal": func() error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		return unix.PidfdSendSignal(fd, 0, nil, 0)
	},
	"landlock":          func() error { _, err := confine.LandlockABI(); return err },
	"bpf":               func() error { return raw(unix.SYS_BPF, ^uintptr(0)) },
	"perf_event_open":   func() error { return raw(unix.SYS_PERF_EVENT_OPEN, 0) },
	"userfaultfd":       func() error { return raw(unix.SYS_USERFAULTFD, ^uintptr(0)) },
	"io_uring_setup":    func() error { return raw(unix.SYS_IO_URING_SETUP, 1, 0) },
	"io_uring_enter":    func() error { return raw(unix.SYS_IO_URING_ENTER, ^uintptr(0)) },
	"io_uring_register": func() error { return raw(unix.SYS_IO_URING_REGISTER, ^uintptr(0)) },
	"delete_module":     func() error { return raw(unix.SYS_DELETE_MODULE, 0) },
	"kexec_load":        func() error { return raw(unix.SYS_KEXEC_LOAD, 0, ^uintptr(0)) },
	"open_by_handle_at": func() error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0) },
	"clone3":            func() error { return raw(unix.SYS_CLONE3, 0, 0) },
	"seccomp filter":    func() error { return harmlessFilter(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0) },
	"seccomp listener": func() error {
		return harmlessFilter(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	},
	"prctl filter":      func() error { return harmlessFilter(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER) },
	"socket packet":     func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"socket vsock":      func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	"prctl set mm":      func() error { return unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_EXE_FILE, 0, 0, 0) },
	"netlink netfilter": func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER) },
	"netlink route":     func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
	"socket inet":       func() error { return socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
	"socket unix":       func() error { return socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"memfd_create":      func() error { _, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC); return err },
	"x32 getpid":        func() error { return raw(0x40000000 | unix.SYS_GETPID) },
}

// harmlessFilter loads a filter that allows everything.
func harmlessFilter(call, operation, flags uintptr) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	fprog := unix.SockFprog{Len: 1, Filter: &program[0]}
	fd, _, errno := unix.Syscall(call, operation, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno == 0 && fd != 0 {
		unix.Close(int(fd))
	}
	return errno
}

func socket(family, kind, protocol int) error {
	_, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	return err
}

// refuseCall gives an error in the kernel's place for a system call of any
// arguments; the error 0 is success.
func refuseCall(number, errno string) error {
	nr, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return err
	}
	answer, err := strconv.ParseUint(errno, 10, 16)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const nrOffset = 0 // of struct seccomp_data
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nrOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(answer)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// For all threads, since the execve may come from another one.
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&fprog)))
	if failed != 0 {
		return failed
	}
	return nil
}
