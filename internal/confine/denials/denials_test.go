// SPDX-License-Identifier: Apache-2.0

package denials

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/confine/observe"
)

// As Linux 6.18 writes them, but for the shorter rest of the system call's.
const (
	access  = `audit(1795522149.110:4): domain=10ab78471 blockers=fs.read_file path="/srv/in put" dev="vda" ino=19145`
	domain  = `audit(1795522149.110:4): domain=10ab78471 status=allocated mode=enforcing pid=26219 uid=0 exe="/usr/bin/python3.11" comm="python3"`
	syscall = `audit(1795522149.110:4): arch=c000003e syscall=257 success=no exit=-13 ppid=25879 pid=26300 comm="cat" exe="/bin/cat" key=(null)`
	second  = `audit(1795522149.110:5): domain=10ab78471 blockers=fs.make_reg,fs.refer path=2F737276220A dev="vda" ino=68642`
	freed   = `audit(1795522149.282:6): domain=10ab78471 status=deallocated denials=2`
)

func TestParse(t *testing.T) {
	tests := []struct {
		text, path string
		kinds      observe.Kind
	}{
		{access, "/srv/in put", observe.Read},
		{second, "/srv\"\n", observe.Create | observe.Rename},
		{`audit(1.0:1): domain=1 blockers=net.bind_tcp saddr=127.0.0.1`, "", 0},
		{`audit(1.0:1): domain=1 blockers=fs.write_file`, "", 0},
		{`audit(1.0:1): domain=1 blockers=fs.write_file path="/half`, "", 0},
	}
	for _, tt := range tests {
		r, ok := parse(tt.text)
		d, denied := r.access()
		if !ok || denied != (tt.kinds != 0) || denied && (d.Path != tt.path || d.Kinds != tt.kinds) {
			t.Errorf("%s: got %q %s", tt.text, d.Path, d.Kinds)
		}
	}
	for _, text := range []string{"", "audit(", "pid=1", "audit(1.0:1) domain=1"} {
		if _, ok := parse(text); ok {
			t.Errorf("%q is taken for a record", text)
		}
	}
}

func TestAttribution(t *testing.T) {
	tests := map[string]struct {
		ours []int
		want []string
	}{
		"the domain's maker is ours": {[]int{26219}, []string{"/srv/in put by 26300 /bin/cat", "/srv\"\n by 26301 /bin/sh"}},
		"the process is ours":        {[]int{26301}, []string{"/srv\"\n by 26301 /bin/sh"}},
		"neither":                    {[]int{1}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			r := newReader(func(pid int) bool { return slices.Contains(tt.ours, pid) })
			for _, m := range []struct {
				kind uint16
				text string
			}{
				{typeAccess, access}, {typeDomain, domain}, {typeSyscall, syscall}, {1320, "audit(1795522149.110:4): "},
				{typeAccess, second}, {typeSyscall, `audit(1795522149.110:5): pid=26301 exe="/bin/sh"`},
				{typeSyscall, `audit(1795522149.110:9): pid=26219 exe="/bin/other"`}, {typeDomain, freed},
			} {
				r.take(m.kind, m.text, func(d Denial) { got = append(got, fmt.Sprint(d.Path, " by ", d.PID, " ", d.Binary)) })
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(r.pending) > 0 {
				t.Errorf("%d accesses wait for ever", len(r.pending))
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := newReader(func(int) bool { return true })
	for i := range 10 * maxDomains {
		r.take(typeAccess, fmt.Sprintf(`audit(1.0:%d): domain=%x blockers=fs.read_file path="/x"`, i, i), nil)
		r.take(typeDomain, fmt.Sprintf(`audit(1.0:%d): domain=%x status=allocated pid=%d`, i, i, i+1), nil)
	}
	if len(r.pending) > maxPending || len(r.domains) > maxDomains {
		t.Errorf("%d accesses and %d domains are kept", len(r.pending), len(r.domains))
	}
}

func TestStatus(t *testing.T) {
	answer := make([]byte, 36)
	answer[4], answer[5] = 0xe8, 0x03
	if on, err := parseStatus(answer); on || err != nil {
		t.Errorf("off is %t, %v", on, err)
	}
	answer[20] = 1
	if on, err := parseStatus(answer); !on || err != nil {
		t.Errorf("on is %t, %v", on, err)
	}
	answer[4], answer[5] = 2, 0 // it is not for this process to know
	if on, err := parseStatus(answer); on || err != nil {
		t.Errorf("refused is %t, %v", on, err)
	}
	answer[4] = 5
	if _, err := parseStatus(answer); err == nil {
		t.Error("something else is taken for an answer")
	}
	if _, err := parseStatus(answer[:20]); err == nil {
		t.Error("half an answer is taken for one")
	}
}

func FuzzTake(f *testing.F) {
	for _, text := range []string{access, domain, syscall, second, freed} {
		f.Add(uint16(typeAccess), text)
		f.Add(uint16(typeSyscall), text)
	}
	f.Fuzz(func(t *testing.T, kind uint16, text string) {
		r := newReader(func(int) bool { return true })
		report := func(d Denial) {
			if d.Kinds == 0 || d.Path == "" || d.Path[0] != '/' {
				t.Errorf("reported %+v", d)
			}
		}
		for _, k := range []uint16{kind, typeAccess, typeDomain, typeSyscall} {
			r.take(k, text, report)
		}
	})
}

// fileEnv makes the test binary a process that Landlock refuses a file to.
const fileEnv = "DENIALS_TEST_FILE"

func TestMain(m *testing.M) {
	if name := os.Getenv(fileEnv); name != "" {
		if err := landlock.V1.RestrictPaths(landlock.ROFiles("/dev/null")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		_, _ = os.Stdin.Read(make([]byte, 1))
		if _, err := os.Open(name); !errors.Is(err, os.ErrPermission) {
			os.Exit(3)
		}
		return
	}
	if os.Getenv(callEnv) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		beRefused()
		return
	}
	os.Exit(m.Run())
}

func TestKernel(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var child atomic.Int64
	mine := func(pid int) bool { return int64(pid) == child.Load() }
	r, err := Open(mine)
	if errors.Is(err, ErrOff) {
		// It is the node's, so it is on for no longer than this takes.
		setAuditing(t, 1)
		t.Cleanup(func() { setAuditing(t, 0) })
		r, err = Open(mine)
	}
	if err != nil {
		t.Fatal(err)
	}
	denied := make(chan Denial, 100)
	go func() { _ = r.Read(func(d Denial) { denied <- d }, func(reason string) { t.Error(reason) }) }()
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{fileEnv + "=" + name}
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
	case d := <-denied:
		if d.Path != name || d.Kinds != observe.Read || d.PID != cmd.Process.Pid {
			t.Errorf("got %+v", d)
		}
	case <-time.After(time.Minute):
		t.Error("the kernel's record did not come")
	}
}

// setAuditing switches the kernel's auditing on or off (AUDIT_SET with
// AUDIT_STATUS_ENABLED, linux/audit.h).
func setAuditing(t *testing.T, enabled uint32) {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_AUDIT, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	status := make([]byte, 48) // struct audit_status
	binary.NativeEndian.PutUint32(status, 1)
	binary.NativeEndian.PutUint32(status[4:], enabled)
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.AUDIT_SET, Flags: netlink.Request | netlink.Acknowledge}, Data: status,
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ECONNREFUSED) { // not the first PID namespace
		t.Skipf("not allowed to switch auditing: %v", err)
	}
	if err != nil {
		t.Fatalf("switch auditing: %v", err)
	}
}
