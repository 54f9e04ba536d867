// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"path/filepath"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

// Policies as OpenShell's users write them, and the examples, compile.
func TestCompileExamples(t *testing.T) {
	for _, dir := range []string{"openshell", "policies"} {
		files, err := filepath.Glob(filepath.Join("../testdata", dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			mustCompile(t, policytest.Load(t, filepath.Join(dir, filepath.Base(file))))
		}
	}
}

// FuzzCompile checks that whatever parses compiles.
func FuzzCompile(f *testing.F) {
	for _, name := range []string{"policies/agent.yaml", "policies/build.yaml", "learned.yaml", "policies/locked.yaml"} {
		data, err := policy.Marshal(policytest.Load(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, _, err := policy.Parse(data)
		if err != nil {
			return
		}
		if _, err := Compile(p, Options{}); err != nil {
			t.Fatalf("valid, but does not compile: %v", err)
		}
	})
}

// What was approved works, whatever the base says of the same host.
func TestMergeGrantsWhatWasLearned(t *testing.T) {
	e := mustCompile(t, policy.Merge(policytest.Load(t, "policies/agent.yaml"), policytest.Load(t, "learned.yaml")))
	m := e.Connect(Connection{Binary: "/usr/bin/curl", Host: "api.github.com", Port: 443})
	for _, tt := range []struct {
		method, path string
		want         Decision
	}{
		{"GET", "/repos/a/b", Allow},         // base
		{"POST", "/repos/o/r/issues", Allow}, // learned
		{"POST", "/repos/x/y/issues", Deny},
		{"GET", "/repos/o/r/actions/secrets/", Deny}, // the base's deny rule
	} {
		if v := m.Request(Request{Method: tt.method, Path: tt.path}); v.Decision != tt.want {
			t.Errorf("%s %s: %+v", tt.method, tt.path, v)
		}
	}
}
