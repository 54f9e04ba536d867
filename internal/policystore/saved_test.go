// SPDX-License-Identifier: Apache-2.0

package policystore

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSave(t *testing.T) {
	c := newNode(t)
	c.MaximumPolicy = filepath.Join(c.PolicyDir, "maximum.yaml")
	for path, text := range map[string]string{
		filepath.Join(c.PolicyDir, "agent.yaml"): oneRule,
		c.MaximumPolicy:                          oneRule,
		filepath.Join(c.StateDir, "policies", "agent", "learned.yaml"): strings.ReplaceAll(oneRule, "web", "learned"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := Load(c, "agent")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policies.json")
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSaved(path, c.StateDir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; saved %+v", got, err, want)
	}
	for _, text := range []string{"", "{}", `{"format":"openshell-policies/2"}`, `{"format":"openshell-policies/1","base":"version: 9"}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := ReadSaved(path, c.StateDir); err == nil {
			t.Errorf("%q: %+v", text, p)
		}
	}
}
