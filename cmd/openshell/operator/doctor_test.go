// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
)

func TestDoctor(t *testing.T) {
	n := newNode(t)
	n.write(n.config, n.read(n.config)+"runtime: no-such-runtime\n")
	stdout, stderr, code := n.runWith("", "doctor")
	if code != 1 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	wantContains(t, stdout, "configuration   "+n.config, "fail  runtime ", "no-such-runtime", "fix: install it",
		"\nEffective configuration:\n", "  state_dir: "+n.stateDir, "  keep_days: 7")

	stdout, _, code = n.runWith("", "doctor", "--json")
	var report struct {
		Checks        []finding      `json:"checks"`
		Configuration map[string]any `json:"configuration"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 1 {
		t.Fatalf("exit %d, %v", code, err)
	}
	if report.Configuration["state_dir"] != n.stateDir || len(report.Checks) != 15 {
		t.Errorf("report: %+v", report)
	}
	for _, f := range report.Checks {
		if (f.Status == statusOK) != (f.Fix == "") || f.Detail == "" {
			t.Errorf("finding %+v", f)
		}
	}

	n.write(n.config, "version: 1\nnonsense: 1\n")
	stdout, _, code = n.runWith("", "doctor")
	wantContains(t, stdout, "fail  configuration", "nonsense", "runtime: runc")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
}

func TestChecksOfThisKernel(t *testing.T) {
	for _, f := range []finding{checkRoot(0), checkSeccomp(), checkNetwork(), checkObservation(), checkLandlock()} {
		if f.Status == statusFail {
			t.Errorf("%+v", f)
		}
	}
	if f := checkRoot(1000); f.Status != statusFail {
		t.Errorf("%+v", f)
	}
}

func TestCheckPrivate(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[os.FileMode]string{0o700: statusOK, 0o711: statusWarn, 0o755: statusWarn, 0o770: statusWarn, 0o702: statusFail} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if f := checkPrivate("state_dir", dir); f.Status != want {
			t.Errorf("%o: %+v", mode, f)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if f := checkPrivate("state_dir", dir); f.Status != statusFail {
		t.Errorf("another's: %+v", f)
	}
	if f := checkPrivate("state_dir", filepath.Join(dir, "later")); f.Status != statusOK {
		t.Errorf("not there: %+v", f)
	}
}

func TestCheckPolicies(t *testing.T) {
	n := newNode(t)
	c, err := config.Load(n.config)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want, detail string) {
		t.Helper()
		if f := checkPolicies(c); f.Status != want || !strings.Contains(f.Detail, detail) {
			t.Errorf("%+v, want %s with %q", f, want, detail)
		}
	}
	check(statusOK, "does not exist")
	n.write(n.policyFile("agent"), agentPolicy)
	check(statusOK, "1 policy")
	n.write(n.policyFile("broken"), "version: 3\n")
	check(statusWarn, n.policyFile("broken"))
	c.DefaultPolicy = "broken"
	check(statusFail, "version")
	c.DefaultPolicy = "agent"
	if err := os.Chmod(n.policiesDir, 0o777); err != nil {
		t.Fatal(err)
	}
	check(statusFail, "0777")
}

func TestCheckRuntime(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if f := checkRuntime(t.Context(), script("runc", "echo runc version 9.9; echo more")); f.Status != statusOK || !strings.HasSuffix(f.Detail, "runc (runc version 9.9)") {
		t.Errorf("%+v", f)
	}
	if f := checkRuntime(t.Context(), script("broken", "exit 3")); f.Status != statusFail || !strings.Contains(f.Detail, "exit status 3") {
		t.Errorf("%+v", f)
	}
}

func TestCheckLauncher(t *testing.T) {
	dir := t.TempDir()
	// An executable of one program header.
	program := func(name string, kind elf.ProgType) string {
		var image bytes.Buffer
		header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
		copy(header.Ident[:], elf.ELFMAG)
		header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
		for _, part := range []any{header, elf.Prog64{Type: uint32(kind)}} {
			if err := binary.Write(&image, binary.LittleEndian, part); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, image.Bytes(), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	static, dynamic := program("static", elf.PT_LOAD), program("dynamic", elf.PT_INTERP)
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("text"), 0o700); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		places []string
		status string
		detail string
	}{
		"none":      {nil, statusFail, "neither beside openshell nor in libexec"},
		"missing":   {[]string{missing}, statusFail, "neither"},
		"second":    {[]string{missing, static}, statusOK, static},
		"dynamic":   {[]string{dynamic, static}, statusFail, "dynamically"},
		"no ELF":    {[]string{text}, statusFail, text},
		"directory": {[]string{dir}, statusFail, "not an executable file"},
	} {
		if f := checkPlaces("launcher", confine.InitName, c.places); f.Status != c.status || !strings.Contains(f.Detail, c.detail) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
