// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"openshell.ai/openshell/internal/confine/launch"
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
	if err := WriteDir(dir, make([]byte, 16), enforcing); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": 0o755 | fs.ModeDir, FilterName: 0o644, ConfigName: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%d files were left behind, want 2", len(entries))
	}
}

func TestWriteConfinementReplaces(t *testing.T) {
	dir := t.TempDir()
	if err := WriteDir(dir, make([]byte, 8), Confinement{Mode: ModePermissive}); err != nil {
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
	if got := string(before[:n]); got != `{"mode":"permissive","landlock":null}` {
		t.Errorf("an open reader sees %q", got)
	}
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(after), `"mode":"enforcing"`) {
		t.Errorf("got %s", after)
	}
}

func TestWriteRefuses(t *testing.T) {
	withPath := func(p string) Confinement {
		return Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: launch.BestEffort, KernelABI: 1, ReadOnly: []string{p}}}
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
		{"the kernel was not asked", filter, Confinement{Mode: ModeEnforcing, Landlock: &Ruleset{Compatibility: launch.BestEffort}}, "kernel_abi 0"},
		{"relative path", filter, withPath("usr"), `"usr" is not an absolute path`},
		{"path that is not text", filter, withPath("/a\xff"), "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "confine")
			err := WriteDir(dir, tt.filter, tt.c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v lacks %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, ConfigName)); err == nil {
				t.Error("a confinement was written")
			}
		})
	}
}

func TestWriteRefusesWhatTheLauncherWouldNotRead(t *testing.T) {
	r := *enforcing.Landlock
	for range 2200 {
		r.ReadOnly = append(r.ReadOnly, "/"+strings.Repeat("x", 4000))
	}
	err := WriteConfinement(t.TempDir(), Confinement{Mode: ModeEnforcing, Landlock: &r})
	if err == nil || !strings.Contains(err.Error(), "name fewer paths") {
		t.Errorf("error %v", err)
	}
}

func TestLandlockABI(t *testing.T) {
	abi, err := LandlockABI()
	if (abi > 0) != (err == nil) {
		t.Errorf("got %d and %v", abi, err)
	}
}
