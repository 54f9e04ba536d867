// SPDX-License-Identifier: Apache-2.0

package policystore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

const oneRule = `version: 1
network_policies:
  web:
    name: web
    endpoints: [{host: example.com, port: 443}]
    binaries: [{path: /usr/bin/curl}]
`

// newNode returns the configuration of a node that has no policy yet.
func newNode(t *testing.T) *config.Config {
	t.Helper()
	c := config.Default()
	dir := t.TempDir()
	c.StateDir, c.RunDir, c.PolicyDir = filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "policies")
	if err := os.MkdirAll(c.PolicyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

func writePolicy(t *testing.T, c *config.Config, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.PolicyDir, name+".yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadPolicies(t *testing.T) {
	tests := []struct {
		name          string
		files         map[string]string // in policy_dir
		learned       string
		defaultPolicy string
		baseFile      string // "" for the built-in default
		named         bool
		rules         int
		err           string
	}{
		{name: "nothing"},
		{name: "the operator's", files: map[string]string{"agent": oneRule}, baseFile: "agent.yaml", named: true, rules: 1},
		{name: "the node's default", files: map[string]string{"house": oneRule}, defaultPolicy: "house", baseFile: "house.yaml", rules: 1},
		{name: "the operator's before the default", files: map[string]string{"agent": "version: 1\n", "house": oneRule}, defaultPolicy: "house", baseFile: "agent.yaml", named: true},
		{name: "a default that is not there", defaultPolicy: "house", err: "default_policy"},
		{name: "learned only", learned: strings.ReplaceAll(oneRule, "web", "learned"), named: true, rules: 1},
		{name: "both", files: map[string]string{"agent": oneRule}, learned: strings.ReplaceAll(oneRule, "web", "learned"), baseFile: "agent.yaml", named: true, rules: 2},
		{name: "not valid", files: map[string]string{"agent": "version: 9\n"}, err: "agent.yaml"},
		{name: "learned that is not valid", learned: "version: 9\n", err: "learned"},
		{name: "too long", files: map[string]string{"agent": strings.Repeat("#", maxPolicyFile+1)}, err: "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newNode(t)
			c.DefaultPolicy = tt.defaultPolicy
			for name, text := range tt.files {
				writePolicy(t, c, name, text)
			}
			if tt.learned != "" {
				if err := state.WriteFile(state.Open(c.StateDir).LearnedPath("agent"), []byte(tt.learned), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p, err := Load(c, "agent")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if tt.baseFile != "" {
				want = filepath.Join(c.PolicyDir, tt.baseFile)
			}
			if p.BaseFile != want || p.Named != tt.named || len(p.Effective.Network) != tt.rules {
				t.Errorf("base %s, named %t, %d rules", p.BaseFile, p.Named, len(p.Effective.Network))
			}
			if want == "" && p.Base.Digest() != policy.Default().Digest() {
				t.Error("the base is not the built-in default")
			}
		})
	}
}

func TestLoadPoliciesRefusesNames(t *testing.T) {
	c := newNode(t)
	if err := os.WriteFile(filepath.Join(c.PolicyDir, "..", "out.yaml"), []byte(oneRule), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../out", ".hidden", "a/b", "a\nb", strings.Repeat("a", 129)} {
		if p, err := Load(c, name); err == nil || !strings.Contains(err.Error(), "policy name") {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
}

func TestFiles(t *testing.T) {
	c := config.Default()
	c.DefaultPolicy, c.MaximumPolicy = "house", "/etc/openshell/maximum.yaml"
	want := []string{"/etc/openshell/policies/agent.yaml", "/var/lib/openshell/policies/agent/learned.yaml",
		"/etc/openshell/policies/house.yaml", "/etc/openshell/maximum.yaml"}
	if got := Files(c, "agent"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
