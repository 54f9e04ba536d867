// SPDX-License-Identifier: Apache-2.0

package denials

import (
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As Linux 6.18 writes them.
const (
	refused = `audit(1796138465.136:380): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=5723 comm="f" exe="/tmp/f" sig=0 arch=c000003e syscall=165 compat=0 ip=0x7f03da906829 code=0x50000`
	killed  = `audit(1796138465.136:381): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=5724 comm="f" exe=2F746D702F612066 sig=31 arch=40000003 syscall=1 compat=1 ip=0x7f03da906829 code=0x80000000`
)

func TestParseCall(t *testing.T) {
	for _, tt := range []struct {
		kind uint16
		text string
		want Call
	}{
		{typeSeccomp, refused, Call{PID: 5723, Binary: "/tmp/f", Number: 165, Arch: 0xc000003e}},
		{typeSeccomp, killed, Call{PID: 5724, Binary: "/tmp/a f", Number: 1, Arch: 0x40000003, Killed: true}},
		{typeSyscall, refused, Call{}},
		{typeSeccomp, `audit(1.0:1): pid=1 exe="/x" sig=0 arch=zz syscall=1`, Call{}},
		{typeSeccomp, `audit(1.0:1): pid=1 exe="/x" sig=0 arch=1 syscall=-1`, Call{}},
		{typeSeccomp, `audit(1.0:1): exe="/x" sig=0 arch=1 syscall=1`, Call{}},
		{typeSeccomp, "", Call{}},
	} {
		got, ok := parseCall(tt.kind, tt.text)
		if ok != (tt.want != Call{}) || ok && got != tt.want {
			t.Errorf("%s: %+v, %t; want %+v", tt.text, got, ok, tt.want)
		}
	}
}

func FuzzParseCall(f *testing.F) {
	f.Add(refused)
	f.Add(killed)
	f.Fuzz(func(t *testing.T, text string) {
		if c, ok := parseCall(typeSeccomp, text); ok && (c.PID == 0 || c.Number < 0) {
			t.Errorf("%q is %+v", text, c)
		}
	})
}

// callEnv makes the test binary a process to which a seccomp filter refuses a system call.
const callEnv = "DENIALS_TEST_CALL"

// beRefused makes a filter that is logged refuse acct(2) to this thread, and calls it.
func beRefused() {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_ACCT},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x50000 | uint32(unix.EPERM)}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},                   // SECCOMP_RET_ALLOW
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&program)))
	_ = unix.Acct("/nothing")
}

func TestKernelTellsOfCalls(t *testing.T) {
	setAuditing(t, 0) // skips where the kernel's log is not for this process
	var child atomic.Int64
	r, err := OpenCalls(func(pid int) bool { return int64(pid) == child.Load() })
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan Call, 100)
	go func() { _ = r.ReadCalls(func(c Call) { calls <- c }) }()
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{callEnv + "=1"}
	in, err := cmd.StdinPipe() // which it waits for
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child.Store(int64(cmd.Process.Pid))
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-calls:
		if c.PID != cmd.Process.Pid || c.Number != unix.SYS_ACCT || c.Killed {
			t.Errorf("got %+v", c)
		}
	case <-time.After(time.Minute):
		t.Error("the kernel's record did not come")
	}
}
