// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"encoding/binary"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Answers of a filter (linux/seccomp.h).
const (
	allow       = unix.SECCOMP_RET_ALLOW
	killProcess = unix.SECCOMP_RET_KILL_PROCESS
)

func errno(e unix.Errno) int { return unix.SECCOMP_RET_ERRNO | int(e) }

// auditArch is AUDIT_ARCH_* (linux/audit.h) of the running architecture.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}[runtime.GOARCH]

type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// packet lays a call out as the kernel's struct seccomp_data, in the byte order
// in which the virtual machine loads words.
func (c call) packet() []byte {
	words := []uint32{c.nr, c.arch, 0, 0} // the last two are the instruction pointer
	for _, a := range c.args {
		words = append(words, uint32(a), uint32(a>>32)) // little-endian machines only
	}
	var data []byte
	for _, w := range words {
		data = binary.BigEndian.AppendUint32(data, w)
	}
	return data
}

// machine runs filters as the kernel would: the strictest answer of all counts.
type machine []*bpf.VM

func machineOf(tb testing.TB, programs ...[]byte) (m machine) {
	tb.Helper()
	for _, program := range programs {
		var instructions []bpf.Instruction
		for raw := range slices.Chunk(program, 8) {
			instructions = append(instructions, bpf.RawInstruction{
				Op: binary.NativeEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.NativeEndian.Uint32(raw[4:]),
			}.Disassemble())
		}
		vm, err := bpf.NewVM(instructions)
		if err != nil {
			tb.Fatal(err)
		}
		m = append(m, vm)
	}
	return m
}

func compiled(tb testing.TB, o Options) machine {
	tb.Helper()
	p, err := Compile(o)
	if err != nil {
		tb.Fatal(err)
	}
	return machineOf(tb, p.Loud, p.Quiet)
}

func run(tb testing.TB, m machine, c call) int {
	tb.Helper()
	strictest := allow
	for _, vm := range m {
		answer, err := vm.Run(c.packet())
		if err != nil {
			tb.Fatal(err)
		}
		const action = unix.SECCOMP_RET_ACTION_FULL
		if int32(uint32(answer)&action) < int32(uint32(strictest)&action) {
			strictest = answer
		}
	}
	return strictest
}

func TestFilterDecisions(t *testing.T) {
	if auditArch == 0 {
		t.Fatalf("no audit architecture known for %s", runtime.GOARCH)
	}
	const garbage = 0xdeadbeef << 32 // what the kernel ignores of an int argument
	eperm, enosys, einval := errno(unix.EPERM), errno(unix.ENOSYS), errno(unix.EINVAL)
	noFamily := errno(unix.EAFNOSUPPORT)
	tests := []struct {
		name string
		nr   uint32
		args [6]uint64
		want int
	}{
		{"read", unix.SYS_READ, [6]uint64{}, allow},
		{"execve", unix.SYS_EXECVE, [6]uint64{}, allow},
		{"memfd_create", unix.SYS_MEMFD_CREATE, [6]uint64{}, allow},
		{"kill", unix.SYS_KILL, [6]uint64{}, allow},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, enosys},

		{"socket inet", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_STREAM}, allow},
		{"socket inet6 udp", unix.SYS_SOCKET, [6]uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, allow},
		{"socket unix", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM}, allow},
		{"socket unix with garbage", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX | garbage, unix.SOCK_STREAM | garbage}, allow},
		{"socketpair unix", unix.SYS_SOCKETPAIR, [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM}, allow},
		{"socket packet with garbage", unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET | garbage, unix.SOCK_RAW}, noFamily},
		{"socket vsock with garbage", unix.SYS_SOCKET, [6]uint64{unix.AF_VSOCK | garbage}, noFamily},
		{"packet by its old name", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_PACKET | unix.SOCK_CLOEXEC}, noFamily},
		{"packet by its old name with garbage", unix.SYS_SOCKET, [6]uint64{unix.AF_INET | garbage, unix.SOCK_PACKET | unix.SOCK_NONBLOCK | garbage}, noFamily},
		{"a negative family", unix.SYS_SOCKET, [6]uint64{math.MaxUint64}, noFamily},
		{"netlink route", unix.SYS_SOCKET, [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, allow},
		{"netlink route with garbage", unix.SYS_SOCKET, [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, garbage}, allow},
		{"protocol 12 of another family", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_RAW, 12}, allow},

		{"execveat of a path", unix.SYS_EXECVEAT, [6]uint64{3, 0, 0, 0, unix.AT_SYMLINK_NOFOLLOW}, allow},
		{"execveat of a descriptor", unix.SYS_EXECVEAT, [6]uint64{3, 0, 0, 0, unix.AT_EMPTY_PATH}, allow},

		{"clone thread", unix.SYS_CLONE, [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, allow},
		{"clone mount namespace", unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWNS}, allow},
		{"clone user namespace", unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, eperm},
		{"unshare files", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_FILES}, allow},
		{"unshare user and net", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNET | garbage}, eperm},

		{"prctl for the executable", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_MM, unix.PR_SET_MM_EXE_FILE, 3}, einval},
		{"prctl for all of it", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_MM | garbage, unix.PR_SET_MM_MAP}, einval},
		{"prctl for a name", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_NAME}, allow},

		{"seccomp strict", unix.SYS_SECCOMP, [6]uint64{unix.SECCOMP_SET_MODE_STRICT}, allow},
		{"seccomp filter", unix.SYS_SECCOMP, [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC}, allow},
		{"seccomp filter with a listener", unix.SYS_SECCOMP, [6]uint64{unix.SECCOMP_SET_MODE_FILTER | garbage,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | garbage}, einval},
		{"prctl for a filter", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER}, allow},
		{"landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, [6]uint64{3}, allow},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [6]uint64{1}, allow},
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{3, 15}, allow},
		{"seccomp probe", unix.SYS_SECCOMP, [6]uint64{unix.SECCOMP_GET_ACTION_AVAIL}, allow},
	}
	vm := compiled(t, Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := run(t, vm, call{auditArch, tt.nr, tt.args}); got != tt.want {
				t.Errorf("answer %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestFilterRefusesEveryNetlinkProtocolButRoute(t *testing.T) {
	vm := compiled(t, Options{})
	for protocol := uint64(1); protocol < 32; protocol++ {
		c := call{auditArch, unix.SYS_SOCKET, [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, protocol}}
		if got := run(t, vm, c); got != errno(unix.EPROTONOSUPPORT) {
			t.Errorf("protocol %d: answer %#x", protocol, got)
		}
	}
}

func TestFilterRefusesEveryFamilyButThoseNeeded(t *testing.T) {
	vm := compiled(t, Options{})
	var families []uint64
	for family := range uint64(1 << 12) {
		families = append(families, family)
	}
	for bit := 12; bit < 32; bit++ { // above any that there will be, with the lower bits of each that is needed
		for _, low := range allowedFamilies {
			families = append(families, 1<<bit|uint64(low))
		}
	}
	for _, nr := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		for _, family := range families {
			want := errno(unix.EAFNOSUPPORT)
			switch family {
			case unix.AF_UNSPEC, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK:
				want = allow
			}
			if got := run(t, vm, call{auditArch, nr, [6]uint64{family, unix.SOCK_RAW}}); got != want {
				t.Errorf("system call %d, family %d: answer %#x, want %#x", nr, family, got, want)
			}
		}
	}
}

// The list is repeated here by name, so that nothing leaves it unnoticed.
func TestFilterRefusesWithoutConditions(t *testing.T) {
	want := map[string]uint32{
		"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT,
		"fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT, "fspick": unix.SYS_FSPICK,
		"move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE, "open_tree_attr": 467,
		"mount_setattr": unix.SYS_MOUNT_SETATTR, "setns": unix.SYS_SETNS, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
		"pidfd_getfd": unix.SYS_PIDFD_GETFD,
		"bpf":         unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE,
		"kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD,
	}
	vm := compiled(t, Options{})
	for name, nr := range want {
		for _, arg := range []uint64{0, math.MaxUint64} {
			c := call{auditArch, nr, [6]uint64{arg, arg, arg, arg, arg, arg}}
			if got := run(t, vm, c); got != errno(unix.EPERM) {
				t.Errorf("%s(%#x, ...): answer %#x, want EPERM", name, arg, got)
			}
		}
	}
	// And nothing joins it unnoticed: with no argument set, only these are refused.
	refusedCalls := 0
	for nr := range uint32(1024) {
		if run(t, vm, call{auditArch, nr, [6]uint64{}}) == errno(unix.EPERM) {
			refusedCalls++
		}
	}
	if refusedCalls != len(want) {
		t.Errorf("%d system calls are refused, want %d", refusedCalls, len(want))
	}
}

func TestFilterKillsOtherEntries(t *testing.T) {
	vm := compiled(t, Options{})
	foreign := map[string]uint32{
		"i386": unix.AUDIT_ARCH_I386, "arm": unix.AUDIT_ARCH_ARM, "x86_64": unix.AUDIT_ARCH_X86_64,
		"aarch64": unix.AUDIT_ARCH_AARCH64, "nonsense": 0xffffffff,
	}
	for name, arch := range foreign {
		if arch == auditArch {
			continue
		}
		for _, nr := range []uint32{0, 1, 20, unix.SYS_MOUNT} {
			if got := run(t, vm, call{arch, nr, [6]uint64{}}); uint32(got) != killProcess {
				t.Errorf("%s system call %d: answer %#x, want kill", name, nr, got)
			}
		}
	}
	if runtime.GOARCH != "amd64" {
		return
	}
	const x32 = 0x40000000 // __X32_SYSCALL_BIT
	for _, nr := range []uint32{0, unix.SYS_GETPID, unix.SYS_MOUNT, 512, 547, 0x3fffffff} {
		if got := run(t, vm, call{auditArch, x32 | nr, [6]uint64{}}); uint32(got) != killProcess {
			t.Errorf("x32 system call %d: answer %#x, want kill", nr, got)
		}
	}
}

func TestCompileIsReproducible(t *testing.T) {
	first, err := Compile(Options{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := Compile(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Error("two compilations differ")
	}
}

// Every rule is in its program, with its own errno and its own conditions.
func TestCompileHasEveryRule(t *testing.T) {
	for _, o := range []Options{{}, {NestedSandboxes: true}} {
		p, err := Compile(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []struct {
			program []byte
			rules   []rule
		}{{p.Loud, loudRules(o)}, {p.Quiet, quietRules()}} {
			vm := machineOf(t, list.program)
			for _, r := range list.rules {
				c := call{arch: auditArch, nr: uint32(r.nr)}
				for _, w := range r.when {
					c.args[w.argument] |= w.value
				}
				if got := run(t, vm, c); got != errno(r.errno) {
					t.Errorf("%d %v: answer %#x, want errno %d", c.nr, c.args, got, r.errno)
				}
			}
		}
	}
}

// Nested sandboxes have mounts and user namespaces, and nothing besides.
func TestNestedSandboxes(t *testing.T) {
	with, without := compiled(t, Options{NestedSandboxes: true}), compiled(t, Options{})
	for nr := range uint32(1024) {
		for _, flags := range []uint64{0, unix.CLONE_NEWUSER, unix.CLONE_NEWUSER | unix.CLONE_NEWNET} {
			c := call{auditArch, nr, [6]uint64{flags, flags}}
			want := run(t, without, c)
			if slices.Contains(mounts, int(nr)) || flags != 0 && (nr == unix.SYS_CLONE || nr == unix.SYS_UNSHARE) {
				if want != errno(unix.EPERM) {
					t.Errorf("%d: %#x without", nr, want)
				}
				want = allow
			}
			if got := run(t, with, c); got != want {
				t.Errorf("%d(%#x): %#x, want %#x", nr, flags, got, want)
			}
		}
	}
}

func TestCompileRefusal(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]int{
		specs.ActErrno: unix.SECCOMP_RET_ERRNO | 77, specs.ActKill: unix.SECCOMP_RET_KILL_THREAD, specs.ActTrap: unix.SECCOMP_RET_TRAP,
		specs.ActKillProcess: killProcess, specs.ActKillThread: unix.SECCOMP_RET_KILL_THREAD,
	} {
		program, err := CompileRefusal(Native("read", "no_such_call", "statx"), action, 77)
		if err != nil {
			t.Fatal(err)
		}
		vm := machineOf(t, program)
		for nr, want := range map[uint32]int{unix.SYS_READ: want, unix.SYS_STATX: want, unix.SYS_WRITE: allow, unix.SYS_EXECVE: allow} {
			if got := run(t, vm, call{auditArch, nr, [6]uint64{}}); uint32(got) != uint32(want) {
				t.Errorf("%s: system call %d: answer %#x, want %#x", action, nr, got, want)
			}
		}
	}
	for _, action := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify, "x"} {
		if _, err := CompileRefusal(nil, action, 1); err == nil || Refuses(action) {
			t.Errorf("%s is a refusal", action)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestName(t *testing.T) {
	native := auditArchs[runtime.GOARCH]
	for want, got := range map[string]string{
		"mount": Name(native, unix.SYS_MOUNT), "1 of another architecture (a 32-bit program's)": Name(0x40000003, 1),
		"39 of another architecture (a 32-bit program's)": Name(native, x32Bit|39), "100000": Name(native, 100000),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
