// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Policies as OpenShell's users write them parse and are written back.
func TestParseOpenShellPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/openshell/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := mustParse(t, string(data))
			again, err := Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if q := mustParse(t, string(again)); q.Digest() != p.Digest() {
				t.Errorf("changed by being written and read:\n%s", again)
			}
		})
	}
}

// Each file is invalid in one way, which its first line names.
func TestParseInvalidPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want := strings.TrimPrefix(first, "# ")
			_, _, err = Parse(data)
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("error %v, want %s", err, want)
			}
			for _, p := range all {
				if p.Line == 0 {
					t.Errorf("without a line: %s", p)
				}
				if strings.Contains(p.Error(), want) {
					want = ""
				}
			}
			if want != "" {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}
