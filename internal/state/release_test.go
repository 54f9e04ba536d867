// SPDX-License-Identifier: Apache-2.0

package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What another release's command has begun, and was killed in, is finished.
func TestReleases(t *testing.T) {
	for _, release := range []string{"before-0.1.0", "release-0.1.0"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", release))); err != nil {
			t.Fatal(err)
		}
		s := Open(dir)
		journal := filepath.Join(s.PolicyDir("p"), journalName)
		text, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(journal, 0o600); err != nil {
			t.Fatal(err)
		}
		if newer := strings.Replace(string(text), "journal/v1", "journal/v2", 1); newer != string(text) {
			write(t, journal, newer)
			if err := s.Recover("p"); err == nil || !strings.Contains(err.Error(), "a newer openshell wrote it") {
				t.Errorf("%s: of a newer one: %v", release, err)
			}
			write(t, journal, strings.Replace(string(text), `{"version"`, `{"weird": 7, "version"`, 1))
		}
		if err := s.Recover("p"); err != nil {
			t.Errorf("%s: %v", release, err)
		}
		for _, path := range []string{s.ProposalPath("p", "a"), s.LearnedPath("p")} {
			if got, err := os.ReadFile(path); string(got) != "new" {
				t.Errorf("%s: %s has %q, %v", release, path, got, err)
			}
		}
		if _, err := os.Lstat(journal); err == nil {
			t.Errorf("%s: the journal is left", release)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckVersion(t *testing.T) {
	const known = "openshell.ai/x/v2"
	for version, want := range map[string]string{
		known: "", "openshell.ai/x/v2.7": "", "openshell.ai/x/v2.": "",
		"openshell.ai/x/v3": "a newer openshell", "openshell.ai/x/v10.1": "a newer openshell",
		"openshell.ai/x/v1": "must be", "openshell.ai/y/v2": "must be", "": "must be", "openshell.ai/x": "must be",
		"openshell.ai/x/v": "must be", "openshell.ai/x/v-2": "must be", "openshell.ai/x/v2x": "must be", "/v2": "must be", "v2": "must be",
		"openshell.ai/x/v99999999999999999999": "must be",
	} {
		err := CheckVersion(version, known)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", version, err, want)
		}
	}
}
