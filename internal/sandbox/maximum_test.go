// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

func writeMaximum(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(dir), "maximum.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const noNetwork = "version: 1\n"

func TestStartUnderAMaximum(t *testing.T) {
	files := func(lists string) string { return "version: 1\nfilesystem_policy: {" + lists + "}\n" }
	for name, tt := range map[string]struct {
		maximum, policy string
		want            string // of the error, empty: it starts
	}{
		"the same":                   {oneRule, oneRule, ""},
		"less":                       {oneRule, noNetwork, ""},
		"the built-in default":       {noNetwork, "", ""},
		"another host":               {oneRule, ruleFor("other.example"), "web"},
		"nothing allowed":            {noNetwork, oneRule, "narrow it in"},
		"files without a limit":      {noNetwork, files("read_write: [/data]"), ""},
		"files within":               {files("include_workdir: true, read_write: [/data]"), files("read_only: [/data/in, /usr/lib]"), ""},
		"the default within":         {files("include_workdir: true"), "", ""},
		"files that are not within":  {files("include_workdir: true, read_only: [/data]"), files("read_write: [/data/in]"), "/data/in"},
		"maximum that is not valid":  {"version: 1\nx: 1\n", noNetwork, "maximum_policy"},
		"policy that is not valid":   {noNetwork, "version: 1\nx: 1\n", "c1.yaml"},
		"maximum that does not load": {"", noNetwork, "maximum_policy"},
	} {
		c := newNode(t)
		c.MaximumPolicy = filepath.Join(filepath.Dir(c.PolicyDir), "maximum.yaml")
		if tt.maximum != "" {
			writeMaximum(t, c.PolicyDir, tt.maximum)
		}
		if tt.policy != "" {
			writePolicy(t, c, "c1", tt.policy)
		}
		for _, permissively := range []bool{false, true} {
			r := request(t.TempDir(), "c1")
			if permissively {
				r = permissive(t.TempDir(), "c1", time.Hour, annotations.OnExpiryEnforce)
			}
			s, err := Start(c, r)
			if s != nil {
				s.Stop()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s, permissive %t: %v, want %q", name, permissively, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: more than one line: %v", name, err)
			}
			if err != nil && !missing(sandboxesDir(c.RunDir))() {
				t.Errorf("%s: the run directory was made", name)
			}
		}
	}
}

// A maximum about files holds in permissive mode too; about the network, it is
// given to the proxy.
func TestMaximumCapsPermissiveMode(t *testing.T) {
	c := newNode(t)
	c.MaximumPolicy = writeMaximum(t, c.PolicyDir, oneRule)
	s := start(t, c, permissive(t.TempDir(), "c1", time.Hour, annotations.OnExpiryEnforce))
	view := s.snapshot()
	at := func(host string) engine.Connection {
		return engine.Connection{Binary: "/usr/bin/curl", Host: host, Port: 443}
	}
	if !view.Permissive || view.Maximum == nil || !view.Maximum.Connect(at("example.com")).Allowed || view.Maximum.Connect(at("other.example")).Allowed {
		t.Errorf("got %+v", view)
	}
	if confinementMode(t, s) != confine.ModePermissive {
		t.Error("files are limited, though the maximum does not say so")
	}
	writeMaximum(t, c.PolicyDir, "version: 1\nfilesystem_policy: {include_workdir: true}\n")
	eventually(t, "files are limited", func() bool { return confinementMode(t, s) == confine.ModeEnforcing })
	eventually(t, "so is the network", func() bool { return !s.snapshot().Maximum.Connect(at("example.com")).Allowed })
	if !s.snapshot().Permissive {
		t.Error("the mode has ended")
	}
}

// A maximum that is narrowed leaves running sandboxes the last valid policy, and
// says what has to be taken back.
func TestNarrowedMaximum(t *testing.T) {
	c := newNode(t)
	c.MaximumPolicy = writeMaximum(t, c.PolicyDir, ruleFor("*.example"+".com"))
	writePolicy(t, c, "c1", noNetwork)
	store := state.Open(c.StateDir)
	learner := learn.Start(store, learn.Run{ID: "r1", Policy: "c1", Mode: learn.ModePermissive, Started: time.Now()}, learn.Options{})
	learner.Observe(learn.Denial{Time: time.Now(), Permissive: true, Layer: "l4", Host: "api.example.com", Port: 443, Protocol: "tcp",
		Binary: "/usr/bin/curl", Kind: learn.KindRaw, Reason: "no"})
	if err := learner.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	proposals, err := learn.List(store, "c1")
	if err != nil || len(proposals) != 1 {
		t.Fatalf("%v, %v", proposals, err)
	}
	p := proposals[0]
	rule := *p.Rule
	maximum := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{p.RuleName: &rule}}
	text, err := policy.Marshal(maximum)
	if err != nil {
		t.Fatal(err)
	}
	writeMaximum(t, c.PolicyDir, string(text))
	if _, err := learn.Approve(store, "c1", []string{p.ID}, "me"); err != nil {
		t.Fatal(err)
	}
	s := start(t, c, request(t.TempDir(), "c1"))
	if !s.allows("api.example.com") {
		t.Fatal("what was approved is not allowed")
	}
	writeMaximum(t, c.PolicyDir, noNetwork)
	undo := "openshell undo c1 " + p.ID
	eventually(t, "sandbox.json says how to take it back", func() bool {
		info, err := Find(c.RunDir, "c1")
		return err == nil && strings.Contains(info.PolicyError, undo)
	})
	if !s.allows("api.example.com") {
		t.Error("the last valid policy is not in force")
	}
	r := request(t.TempDir(), "c2")
	r.Policy = "c1"
	if s, err := Start(c, r); s != nil || err == nil || !strings.Contains(err.Error(), undo) || !strings.Contains(err.Error(), p.RuleName) {
		t.Errorf("another sandbox: %v, %v", s, err)
	}
	if _, err := learn.Undo(store, "c1", p.ID, "me"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rule is gone", func() bool { return !s.allows("api.example.com") })
}

func TestNeverEndpoints(t *testing.T) {
	c := newNode(t)
	c.Permissive.Never = []string{"secret.example", "db.example:5432"}
	s := start(t, c, permissive(t.TempDir(), "c1", time.Hour, annotations.OnExpiryEnforce))
	if never := s.snapshot().Never; !never.Contain("secret.example", 1) || never.Contain("db.example", 80) {
		t.Errorf("got %+v", never)
	}
	// A name that nothing may be sent to is not sent to any DNS server either.
	for name, want := range map[string]bool{
		"secret.example": false, "_https._tcp.secret.example": false, "db.example": true, "other.example": true,
	} {
		if got := s.MayResolve(name); got != want {
			t.Errorf("%s: may resolve %t", name, got)
		}
	}
	c.Permissive.Never = []string{"https://x"}
	if s, err := Start(c, request(t.TempDir(), "c2")); s != nil || err == nil || !strings.Contains(err.Error(), "permissive.never") {
		t.Errorf("got %v, %v", s, err)
	}
}
