// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"openshell.ai/openshell/internal/confine"
)

func TestSystemCalls(t *testing.T) {
	want := map[string]string{
		"pidfd_open": "ok", "pidfd_send_signal": "ok", "landlock": "ok",
		"memfd_create": "ok", "unshare files": "ok", "socket inet": "ok", "socket unix": "ok", "netlink route": "ok",
		"clone3": "ENOSYS",
		"mount":  "EPERM", "umount2": "EPERM", "fsopen": "EPERM", "open_tree": "EPERM", "setns": "EPERM",
		"unshare newuser": "EPERM", "clone newuser": "EPERM",
		"ptrace": "EPERM", "process_vm_readv": "EPERM", "pidfd_getfd": "EPERM",
		"bpf": "EPERM", "perf_event_open": "EPERM", "userfaultfd": "EPERM",
		"io_uring_setup": "EPERM", "io_uring_enter": "EPERM", "io_uring_register": "EPERM",
		"delete_module": "EPERM", "kexec_load": "EPERM", "open_by_handle_at": "EPERM",
		"seccomp filter": "ok", "prctl filter": "ok", "seccomp listener": "EINVAL",
		"socket packet": "EAFNOSUPPORT", "socket vsock": "EAFNOSUPPORT", "netlink netfilter": "EPROTONOSUPPORT",
		"prctl set mm": "EINVAL",
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)

	for mode, c := range map[string]confine.Confinement{"enforcing": enforcing(rules()), "permissive": permissive} {
		t.Run(mode, func(t *testing.T) {
			got := strings.Fields(output(t, command(files(t, c), "syscall", names...)))
			for i, name := range names {
				if got[i] != want[name] {
					t.Errorf("%s: %s, want %s", name, got[i], want[name])
				}
			}
		})
	}
	t.Run("without the filter", func(t *testing.T) { // or the table above proves nothing
		if status, err := os.ReadFile("/proc/self/status"); err != nil || os.Getuid() != 0 || !strings.Contains(string(status), "Seccomp:\t0\n") {
			t.Skip("these tests are confined themselves")
		}
		cmd := exec.Command(probe, names...)
		cmd.Env = append(os.Environ(), probeVariable+"=syscall")
		for i, got := range strings.Fields(output(t, cmd)) {
			if want := want[names[i]]; want != "ok" && got == want {
				t.Errorf("%s: %s without the filter too", names[i], got)
			}
		}
	})
}

func TestX32KillsTheProcess(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x32 is an interface of amd64")
	}
	r := finish(t, command(files(t, permissive), "syscall", "x32 getpid"))
	if r.signal != syscall.SIGSYS {
		t.Errorf("exit code %d, signal %d, stdout %q, want SIGSYS", r.code, r.signal, r.stdout)
	}
}

func TestInt80KillsTheProcess(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("int 0x80 is an interface of amd64")
	}
	program := filepath.Join(testDir(t), "int80")
	if err := os.WriteFile(program, exitThroughInt80(42), 0o755); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, exec.Command(program)); r.code != 42 {
		t.Skip("this kernel has no 32-bit system calls")
	}
	r := finish(t, exec.Command(initPath, "--dir", files(t, permissive), "--", program))
	if r.signal != syscall.SIGSYS {
		t.Errorf("exit code %d, signal %d, want SIGSYS", r.code, r.signal)
	}
}

// exitThroughInt80 returns a 64-bit program that exits through the system call
// interface of 32-bit ones.
func exitThroughInt80(code byte) []byte {
	const base, headers = 0x400000, 64 + 56
	text := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (exit)
		0xbb, code, 0, 0, 0, // mov ebx, code
		0xcd, 0x80, // int 0x80
	}
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)            // e_type: ET_EXEC
	b = le.AppendUint16(b, 62)           // e_machine: EM_X86_64
	b = le.AppendUint32(b, 1)            // e_version
	b = le.AppendUint64(b, base+headers) // e_entry
	b = le.AppendUint64(b, 64)           // e_phoff
	b = le.AppendUint64(b, 0)            // e_shoff
	b = le.AppendUint32(b, 0)            // e_flags
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v) // sizes and counts of the headers
	}
	b = le.AppendUint32(b, 1) // p_type: PT_LOAD
	b = le.AppendUint32(b, 5) // p_flags: read and execute
	size := uint64(headers + len(text))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v) // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
	}
	return append(b, text...)
}
