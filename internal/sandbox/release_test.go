// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/confine"
)

// What an older program's sandboxes say of themselves is found and read, and so is what a newer one's say, unless
// it is another format.
func TestReleases(t *testing.T) {
	for _, release := range []string{"before-0.1.0", "release-0.1.0"} {
		t.Run(release, func(t *testing.T) {
			runDir := releasedRunDir(t, release)
			file := filepath.Join(sandboxesDir(runDir), "web-a95727", infoFile)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check := func() {
				t.Helper()
				info, err := Find(runDir, "web")
				if err != nil || info.Broken != nil {
					t.Fatal(err, info.Broken)
				}
				c := info.Containers[0]
				if info.Mode != confine.ModePermissive || info.TTL != "1h0m0s" || info.Deadline.IsZero() || info.OnExpiry != "stop" ||
					info.Supervisor.PID != 299 || info.InnerID.Ino != 4026532320 || info.LastState != Running ||
					c.Claim == "" || c.Confined == nil || !c.Confined.NoNewPrivs {
					t.Errorf("%+v", info)
				}
			}
			check()
			info, _ := Find(runDir, "web")
			if err := writeInfo(filepath.Dir(file), info); err != nil {
				t.Fatal(err)
			}
			check()
			newer := bytes.Replace(text, []byte(`"mode"`), []byte(`"shadow": {"of": 7}, "mode"`), 1)
			if err := os.WriteFile(file, newer, 0o600); err != nil {
				t.Fatal(err)
			}
			check()
		})
	}
	runDir := releasedRunDir(t, "release-0.1.0")
	file := filepath.Join(sandboxesDir(runDir), "web-a95727", infoFile)
	text, _ := os.ReadFile(file)
	if err := os.WriteFile(file, bytes.Replace(text, []byte("sandbox/v1"), []byte("sandbox/v2"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := Find(runDir, "web-a95727")
	if err != nil || info.Broken == nil || !strings.Contains(info.Broken.Error(), `version "openshell.ai/sandbox/v2": a newer openshell wrote it`) {
		t.Errorf("%v, %v", err, info.Broken)
	}
}

// releasedRunDir is a run directory with the files of a release.
func releasedRunDir(t *testing.T, release string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", release, "run"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(sandboxesDir(dir), "web-a95727", infoFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
