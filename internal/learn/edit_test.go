// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/prover"
)

// edited parses what replacing text in a proposal makes of it.
func edited(t *testing.T, p Proposal, oldnew ...string) (Edit, error) {
	t.Helper()
	text, err := p.Editable()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(string(text), oldnew[i]) {
			t.Fatalf("%q is not in\n%s", oldnew[i], text)
		}
	}
	return p.ParseEdit([]byte(strings.NewReplacer(oldnew...).Replace(string(text))))
}

func TestApproveEdited(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"), request1("DELETE", "/b"))
	p := one(t, store)
	edit, err := edited(t, p, "DELETE", "GET")
	if err == nil || !errors.As(err, new(*prover.ExcessError)) || edit.Rule != nil {
		t.Errorf("GET /b was not proposed: %v, %+v", err, edit)
	}
	edit = Edit{Rule: p.Rule.Clone()}
	rules := &edit.Rule.Endpoints[0].Rules
	*rules = slices.DeleteFunc(*rules, func(r policy.L7Allow) bool { return r.Allow.Method == "DELETE" })

	if _, err := ApproveEdited(store, "agent", p.ID+"@sha256:00", edit, "me"); err == nil {
		t.Error("approved though the digest is another one")
	}
	r, err := ApproveEdited(store, "agent", p.ID+"@"+p.Digest, edit, "me")
	if err != nil || len(r.Approved) != 1 || slices.ContainsFunc(r.Diff, func(s string) bool { return strings.Contains(s, "DELETE") }) {
		t.Fatalf("%+v, %v", r, err)
	}
	if rules := learned(t, store); len(rules) != 1 || !sameRule(rules[p.RuleName], edit.Rule) {
		t.Errorf("learned %+v", rules)
	}
	stored := one(t, store)
	if stored.Status != StatusApproved || stored.Tightened == nil || !sameRule(stored.Tightened.Rule, edit.Rule) || stored.Digest != p.Digest ||
		!strings.Contains(stored.Origin(), "tightened, approved") {
		t.Errorf("stored %+v", stored)
	}
	if r, err := ApproveEdited(store, "agent", p.ID, edit, "me"); err != nil || len(r.Approved) != 0 {
		t.Errorf("the same again: %+v, %v", r, err)
	}
	if r := approve(t, store, p.ID); len(r.Approved) != 0 || !sameRule(learned(t, store)[p.RuleName], edit.Rule) {
		t.Errorf("approving it again widened it: %+v", r)
	}

	// What was taken out is not asked for again, but more is.
	learnFrom(t, store, permissiveRun("r2"), request1("DELETE", "/b"))
	if p := one(t, store); p.Status != StatusApproved || p.Tightened == nil {
		t.Errorf("after the same again: %+v", p)
	}
	learnFrom(t, store, permissiveRun("r3"), request1("PUT", "/c"))
	if p := one(t, store); p.Status != StatusPending || p.Tightened == nil || !sameRule(learned(t, store)[p.RuleName], edit.Rule) {
		t.Errorf("after more: %+v", p)
	}
	approve(t, store, p.ID)
	if p := one(t, store); p.Status != StatusApproved || p.Tightened != nil || !sameRule(learned(t, store)[p.RuleName], p.Rule) {
		t.Errorf("after approving all of it: %+v", p)
	}
	// Tightening what is approved takes the rest back.
	r, err = ApproveEdited(store, "agent", p.ID, edit, "me")
	if err != nil || len(r.Diff) != 2 || !strings.HasPrefix(r.Diff[0], "- ") || !strings.HasPrefix(r.Diff[1], "- ") {
		t.Errorf("tightened later: %+v, %v", r, err)
	}
	if _, err := Undo(store, "agent", p.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if p := one(t, store); p.Status != StatusPending || p.Tightened != nil || len(learned(t, store)) != 0 {
		t.Errorf("after undo: %+v", p)
	}
}

func TestApproveEditedUnchanged(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	p := one(t, store)
	edit, err := edited(t, p, "version: 1", "version: 1 # looked at")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ApproveEdited(store, "agent", p.ID, edit, "me"); err != nil {
		t.Fatal(err)
	}
	if p := one(t, store); p.Status != StatusApproved || p.Tightened != nil {
		t.Errorf("%+v", p)
	}
}

func TestEditIsWithinTheProposal(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"), request1("POST", "/b"))
	p := one(t, store)
	for _, c := range []struct{ old, new, want string }{
		{"host: api.github.com", "host: '*.github.com'", "within what is proposed"},
		{"host: api.github.com", "host: evil.example", "within what is proposed"},
		{"ports: [443]", "ports: [443, 80]", "within what is proposed"},
		{"path: /a", "path: /**", "within what is proposed"},
		{"- path: " + p.Binary, "- path: /usr/bin/**", "within what is proposed"},
		{"enforcement: enforce", "enforcement: audit", "within what is proposed"},
		{"protocol: rest", "tls: skip", ""},
		{"network_policies:", "network_policies:\n  other: {endpoints: [{host: a.example, port: 1}], binaries: [{path: /x}]}", "more in it"},
		{"version: 1", "version: 1\nlandlock: {compatibility: best_effort}", "more in it"},
		{"version: 1", "version: 1\nfilesystem_policy: {read_only: [/data]}", "not only a rule"},
		{"  " + p.RuleName + ":", "  another:", "has no network_policies." + p.RuleName},
		{"name: " + p.RuleName, "name: another", "has another name"},
		{"version: 1", "version: 1\nnonsense: 1", "nonsense"},
	} {
		if _, err := edited(t, p, c.old, c.new); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
	wide := Edit{Rule: p.Rule.Clone()}
	wide.Rule.Endpoints[0].Rules[0].Allow.Path = "/**"
	for name, edit := range map[string]Edit{"wide": wide, "nothing": {}, "both": {Rule: p.Rule, Filesystem: &policy.Filesystem{}},
		"empty": {Rule: &policy.Rule{Name: p.RuleName}}} {
		if _, err := ApproveEdited(store, "agent", p.ID, edit, "me"); err == nil {
			t.Errorf("%s: approved", name)
		}
	}
	if p := one(t, store); p.Status != StatusPending || len(learned(t, store)) != 0 {
		t.Errorf("a refused edit left %+v", p)
	}
}

func TestApproveEditedFiles(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFiles(t, store, "r1", access(OpCreate, "/work/x"), access(OpRead, "/data/a"), access(OpRead, "/data/b"))
	work, data := tree(t, store, "/work"), tree(t, store, "/data")
	if _, err := edited(t, work, "- /work", "- /"); err == nil {
		t.Error("wider paths were accepted")
	}
	narrower, err := edited(t, work, "- /work", "- /work/x", "read_write", "read_only")
	if err != nil {
		t.Fatal(err)
	}
	fewer, err := edited(t, data, "  - /data/a\n", "")
	if err != nil {
		t.Fatal(err)
	}
	for id, edit := range map[string]Edit{work.ID: narrower, data.ID: fewer} {
		if _, err := ApproveEdited(store, "agent", id, edit, "me"); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, store, "/data/b /work/x", "")
	if p := tree(t, store, "/work"); p.Status != StatusApproved || p.Tightened == nil || p.InForce == nil {
		t.Errorf("stored %+v", p)
	}
	if r := approve(t, store, data.ID); len(r.Approved) != 0 {
		t.Errorf("approving it again widened it: %+v", r)
	}
	if _, err := Undo(store, "agent", work.ID, "me"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, store, "/data/b", "")
}

// A proposal whose file was changed by hand is not used.
func TestTightenedIsChecked(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	p := one(t, store)
	p.Tightened = &Edit{Rule: &policy.Rule{Name: "another", Endpoints: p.Rule.Endpoints, Binaries: p.Rule.Binaries}}
	if err := saveProposal(store, &p); err != nil {
		t.Fatal(err)
	}
	if _, err := Get(store, p.ID); err == nil || !strings.Contains(err.Error(), "tightened") {
		t.Errorf("%v", err)
	}
}
