// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

func TestParseConfinement(t *testing.T) {
	for _, in := range []string{
		`{"mode":"permissive","landlock":null}`,
		`{"mode":"enforcing","landlock":{"kernel_abi":7,"compatibility":"best_effort"}}`,
		`{"mode":"enforcing","landlock":{"kernel_abi":-1,"compatibility":"hard_requirement","include_workdir":true,"read_only":["/usr"],"read_write":["/tmp"],"optional":["/usr"]}}` + "\n",
	} {
		if _, err := parseConfinement([]byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestParseConfinementRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"empty file":            ``,
		"null":                  `null`,
		"empty object":          `{}`,
		"half a file":           `{"mode":"enforcing","landlock":{"compat`,
		"enforcing nothing":     `{"mode":"enforcing","landlock":null}`,
		"enforcing, no key":     `{"mode":"enforcing"}`,
		"permissive with rules": `{"mode":"permissive","landlock":{"kernel_abi":7,"compatibility":"best_effort"}}`,
		"unknown mode":          `{"mode":"off"}`,
		"unknown compatibility": `{"mode":"enforcing","landlock":{"kernel_abi":7,"compatibility":"none"}}`,
		"unknown key":           `{"mode":"permissive","seccomp":false}`,
		"unknown nested key":    `{"mode":"enforcing","landlock":{"kernel_abi":7,"compatibility":"best_effort","execute":["/"]}}`,
		"kernel not asked":      `{"mode":"enforcing","landlock":{"compatibility":"best_effort"}}`,
		"kernel of no version":  `{"mode":"enforcing","landlock":{"kernel_abi":-2,"compatibility":"best_effort"}}`,
		"relative path":         `{"mode":"enforcing","landlock":{"kernel_abi":7,"compatibility":"best_effort","read_write":["."]}}`,
		"two values":            `{"mode":"permissive"}{"mode":"permissive"}`,
		"trailing bytes":        `{"mode":"permissive"} x`,
	} {
		if c, err := parseConfinement([]byte(in)); err == nil {
			t.Errorf("%s is accepted as %+v", name, c)
		}
	}
}

func FuzzParseConfinement(f *testing.F) {
	f.Add([]byte(`{"mode":"permissive","landlock":null}`))
	f.Add([]byte(`{"mode":"enforcing","landlock":{"kernel_abi":7,"compatibility":"best_effort","read_only":["/"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfinement(data)
		if err == nil && (c.Landlock == nil) != (c.Mode == ModePermissive) {
			t.Errorf("%s gives %+v", data, c)
		}
	})
}

func TestReadIsBounded(t *testing.T) {
	dir := t.TempDir()
	for name, limit := range map[string]int{ConfigName: MaxConfigSize, FilterName: maxFilterSize} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, limit+8), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readConfinement(dir); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("confinement: error %v", err)
	}
	if _, err := readFilter(dir); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("filter: error %v", err)
	}
}

func TestStreamRights(t *testing.T) {
	const read, write = ll.AccessFSReadFile, ll.AccessFSWriteFile | ll.AccessFSTruncate
	for _, tt := range []struct {
		flags  int
		device bool
		want   uint64
	}{
		{unix.O_RDONLY, false, read},
		{unix.O_WRONLY | unix.O_APPEND, false, write},
		{unix.O_RDWR, false, read | write},
		{unix.O_RDWR, true, read | write | ll.AccessFSIoctlDev},
		{unix.O_RDONLY | unix.O_NONBLOCK, true, read | ll.AccessFSIoctlDev},
		{unix.O_PATH, false, 0},
		{unix.O_PATH, true, 0},
	} {
		if got := streamRights(tt.flags, tt.device); got != tt.want {
			t.Errorf("streamRights(%#x, %t) = %#x, want %#x", tt.flags, tt.device, got, tt.want)
		}
	}
}

// Every right that some ABI handles is granted by read-write, or a kernel with
// that ABI would refuse it everywhere.
func TestReadWriteCoversEveryABI(t *testing.T) {
	for i, c := range handledByABI {
		if missing := uint64(c.HandledAccessFS) &^ (rightsRead | rightsWrite); missing != 0 {
			t.Errorf("ABI %d handles %#x besides", i+1, missing)
		}
	}
}
