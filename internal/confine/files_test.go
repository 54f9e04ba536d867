// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"openshell.ai/openshell/policy"
)

var enforcing = Confinement{Mode: ModeEnforcing, Landlock: ruleset()}

func ruleset() *Ruleset {
	r := RulesetFor(&policy.Policy{Version: 1})
	r.KernelABI = 1
	return r
}

func TestWriteDirIsReadableByAnyUser(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "confine")
	if err := WriteDir(dir, make([]byte, 16), make([]byte, 8), enforcing); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": 0o755 | fs.ModeDir, FilterName: 0o644, QuietName: 0o644, ProfileName: 0o644, ConfigName: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("%d files were left behind, want 4", len(entries))
	}
}

func TestWriteConfinementReplaces(t *testing.T) {
	dir := t.TempDir()
	if err := WriteDir(dir, make([]byte, 8), make([]byte, 8), Confinement{Mode: ModePermissive}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, ConfigName)
	reader, err := os.Open(name) // who reads while it is replaced has the old one, whole
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := WriteConfinement(dir, enforcing); err != nil {
		t.Fatal(err)
	}
	before := make([]byte, 1024)
	n, _ := reader.Read(before)
	if got := string(before[:n]); got != "openshell-confinement-1\x00unrestricted\x00end\x00" {
		t.Errorf("an open reader sees %q", got)
	}
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(after), "\x00landlock\x001\x00") {
		t.Errorf("got %q", after)
	}
}

func TestWriteRefuses(t *testing.T) {
	withPath := func(p string) Confinement {
		return Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: policy.CompatibilityBestEffort, KernelABI: 1, ReadOnly: []string{p}}}
	}
	filter := make([]byte, 8)
	tests := []struct {
		name   string
		filter []byte
		c      Confinement
		want   string
	}{
		{"no filter", nil, enforcing, "0 bytes"},
		{"half an instruction", make([]byte, 12), enforcing, "12 bytes"},
		{"more than the kernel takes", make([]byte, 8*4097), enforcing, "seccomp instructions"},
		{"no mode", filter, Confinement{Landlock: enforcing.Landlock}, `mode ""`},
		{"enforcing nothing", filter, Confinement{Mode: ModeEnforcing}, "needs a landlock ruleset"},
		{"permissive with rules", filter, Confinement{Mode: ModePermissive, Landlock: enforcing.Landlock}, "takes no landlock ruleset"},
		{"no compatibility", filter, Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{}}, `compatibility ""`},
		{"the kernel was not asked", filter, Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: policy.CompatibilityBestEffort}}, "kernel_abi 0"},
		{"relative path", filter, withPath("usr"), `"usr" is not an absolute path`},
		{"path that is not text", filter, withPath("/a\xff"), "UTF-8"},
		{"path that ends too early", filter, withPath("/a\x00b"), "UTF-8"},
		{"path that is too long", filter, withPath("/" + strings.Repeat("x", 4095)), "4096 bytes"},
		{"what the kernel does not have", filter, Confinement{Mode: ModeEnforcing,
			Landlock: &Ruleset{Compatibility: policy.CompatibilityHardRequirement, KernelABI: NoLandlock}}, "the kernel has no landlock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "confine")
			err := WriteDir(dir, make([]byte, 8), tt.filter, tt.c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v lacks %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, ConfigName)); err == nil {
				t.Error("a confinement was written")
			}
		})
	}
}

// The words are those that openshell-init's confine.c reads.
func TestEncode(t *testing.T) {
	for _, tt := range []struct {
		c    Confinement
		want string
	}{
		{Confinement{Mode: ModePermissive, Observed: true}, "observed unrestricted end"},
		{Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: policy.CompatibilityBestEffort, KernelABI: NoLandlock, ReadOnly: []string{"/a"}}}, "unrestricted end"},
		{Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{
			Compatibility: policy.CompatibilityHardRequirement, KernelABI: 1, IncludeWorkdir: true,
			ReadOnly: []string{"/a", "/b"}, ReadWrite: []string{"/c"}, Optional: []string{"/b"},
		}}, "landlock 1 1fff 0 workdir 1ffff path d required /a path d optional /b path 1ffff required /c end"},
		{Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: policy.CompatibilityBestEffort, KernelABI: 7, ReadWrite: []string{"/x y"}}},
			"landlock 7 ffff 2 path 1ffff optional /x y end"},
		{Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: policy.CompatibilityBestEffort, KernelABI: 1000}}, "landlock 1000 1ffff 2 end"},
	} {
		if err := tt.c.Validate(); err != nil {
			t.Error(err)
		}
		got := strings.TrimSuffix(strings.ReplaceAll(string(tt.c.encode()), "\x00", " "), " ")
		if want := "openshell-confinement-1 " + tt.want; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
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

func TestLandlockABI(t *testing.T) {
	abi, err := LandlockABI()
	if (abi > 0) != (err == nil) {
		t.Errorf("got %d and %v", abi, err)
	}
}
