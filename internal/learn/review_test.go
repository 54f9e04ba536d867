// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

func learned(t *testing.T, store *state.Store) map[string]*policy.Rule {
	t.Helper()
	p, err := LearnedPolicy(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	return p.Network
}

func approve(t *testing.T, store *state.Store, ids ...string) Result {
	t.Helper()
	r, err := Approve(store, "agent", ids, "root\n# x")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEmptyStore(t *testing.T) {
	dir := t.TempDir()
	store := state.Open(dir)
	if all, err := List(store, "agent"); err != nil || len(all) != 0 {
		t.Errorf("List: %v, %v", all, err)
	}
	if p, err := LearnedPolicy(store, "agent"); err != nil || p == nil || len(p.Network) != 0 {
		t.Errorf("LearnedPolicy: %v, %v", p, err)
	}
	if _, err := Get(store, "p-00000000"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get: %v", err)
	}
	for _, bad := range []string{"", "../x"} {
		if _, err := List(store, bad); err == nil {
			t.Errorf("List(%q) succeeds", bad)
		}
		if _, err := LearnedPolicy(store, bad); err == nil {
			t.Errorf("LearnedPolicy(%q) succeeds", bad)
		}
		if _, err := Get(store, bad); err == nil {
			t.Errorf("Get(%q) succeeds", bad)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("looking left files: %v", entries)
	}
}

func TestApproveAndUndo(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"), with(raw(), func(d *Denial) { d.Host, d.Port = "git.example", 22 }))
	api, git := proposalOf(t, store, "api.github.com"), proposalOf(t, store, "git.example")

	r := approve(t, store, api.ID, git.ID+"@"+git.Digest, api.ID)
	if len(r.Approved) != 2 || len(r.Diff) == 0 || !slices.ContainsFunc(r.Diff, func(s string) bool { return strings.HasPrefix(s, "+") }) {
		t.Errorf("result %+v", r)
	}
	rules := learned(t, store)
	if len(rules) != 2 || !sameRule(rules[api.RuleName], api.Rule) || !sameRule(rules[git.RuleName], git.Rule) {
		t.Errorf("learned %+v", rules)
	}
	p, err := Get(store, api.ID)
	if err != nil || p.Status != StatusApproved || p.DecidedAt == nil || p.DecidedBy != `root\x0a# x` {
		t.Errorf("proposal %+v, %v", p, err)
	}
	text, err := os.ReadFile(store.LearnedPath("agent"))
	if err != nil || !strings.Contains(string(text), "# "+api.RuleName+": proposal "+api.ID+", learned in permissive mode, approved ") {
		t.Errorf("file %s, %v", text, err)
	}
	if r := approve(t, store, api.ID); len(r.Approved) != 0 || len(r.Diff) != 0 {
		t.Errorf("approved twice: %+v", r)
	}
	if err := Reject(store, "agent", api.ID, "", "me"); err == nil {
		t.Error("rejected what is approved")
	}

	diff, err := Undo(store, "agent", api.ID, "me")
	if err != nil || len(diff) == 0 {
		t.Errorf("undo: %q, %v", diff, err)
	}
	if rules := learned(t, store); len(rules) != 1 || rules[git.RuleName] == nil {
		t.Errorf("learned after undo %+v", rules)
	}
	if p, _ := Get(store, api.ID); p.Status != StatusPending {
		t.Errorf("status after undo %q", p.Status)
	}
	if _, err := Undo(store, "agent", api.ID, "me"); err == nil {
		t.Error("undone twice")
	}
	if _, err := Undo(store, "agent", git.ID, "me"); err != nil {
		t.Error(err)
	}
	if rules := learned(t, store); len(rules) != 0 {
		t.Errorf("learned %+v", rules)
	}
}

// An approved proposal whose rule grows needs a new look, and till then the rule
// that was approved stays as it is.
func TestGrowthAfterApproval(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	seen := one(t, store)
	approve(t, store, seen.ID)

	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/a"))
	if p := one(t, store); p.Status != StatusApproved || p.Evidence.Hits != 2 || p.DecidedBy == "" {
		t.Errorf("more of the same made it %+v", p)
	}
	learnFrom(t, store, permissiveRun("r3"), request1("DELETE", "/a"))
	grown := one(t, store)
	if grown.Status != StatusPending || grown.DecidedAt != nil || grown.DecidedBy != "" || grown.Digest == seen.Digest {
		t.Errorf("grown %+v", grown)
	}
	if rules := learned(t, store); !sameRule(rules[seen.RuleName], seen.Rule) {
		t.Errorf("learned %+v", rules[seen.RuleName])
	}
	if _, err := Approve(store, "agent", []string{seen.ID + "@" + seen.Digest}, "me"); err == nil {
		t.Error("approved a rule that was not looked at")
	}
	if err := Reject(store, "agent", grown.ID, "no deleting", "me"); err != nil {
		t.Fatal(err)
	}
	if rules := learned(t, store); !sameRule(rules[seen.RuleName], seen.Rule) {
		t.Error("rejecting the growth took the approved rule away")
	}
	approve(t, store, grown.ID)
	if rules := learned(t, store); len(rules) != 1 || !sameRule(rules[seen.RuleName], grown.Rule) {
		t.Errorf("learned %+v", rules)
	}
}

func TestRejectionLasts(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	p := one(t, store)
	if err := Reject(store, "agent", p.ID, "telemetry\x1b", "me"); err != nil {
		t.Fatal(err)
	}
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/a"), connect())
	if p := one(t, store); p.Status != StatusRejected || p.RejectionReason != `telemetry\x1b` || p.Evidence.Hits != 3 {
		t.Errorf("proposal %+v", p)
	}
	learnFrom(t, store, permissiveRun("r3"), request1("GET", "/b"))
	if p := one(t, store); p.Status != StatusPending {
		t.Errorf("with a new rule: %q", p.Status)
	}
}

// Approval is of what the file says and the digest covers, all or nothing.
func TestApproveRefuses(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"), with(connect(), func(d *Denial) { d.Host = "good.example" }))
	bad, good := proposalOf(t, store, "api.github.com"), proposalOf(t, store, "good.example")
	original, err := os.ReadFile(store.ProposalPath("agent", bad.ID))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"path":    {`"/a"`, `"**"`},
		"host":    {`"host": "api.github.com"`, `"host": "*.github.com"`},
		"digest":  {bad.Digest, "sha256:" + strings.Repeat("0", 64)},
		"version": {"proposal/v1", "proposal/v2"},
		"id":      {`"id": "` + bad.ID, `"id": "` + good.ID},
		"policy":  {`"policy": "agent"`, `"policy": "other"`},
		"name":    {`"rule_name": "api`, `"rule_name": "xpi`},
		"half":    {`"evidence"`, ``},
	} {
		text := strings.Replace(string(original), change[0], change[1], -1)
		if text == string(original) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := state.WriteFile(store.ProposalPath("agent", bad.ID), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Approve(store, "agent", []string{good.ID, bad.ID}, "me"); err == nil {
			t.Errorf("%s: approved", name)
		}
		if rules := learned(t, store); len(rules) != 0 {
			t.Fatalf("%s: learned %+v", name, rules)
		}
		// Nor does more evidence make it good.
		l := Start(store, permissiveRun("r2"), Options{})
		l.Observe(request1("GET", "/c"))
		if err := l.Close(t.Context()); err == nil {
			t.Errorf("%s: the learner used it", name)
		}
		if now, _ := os.ReadFile(store.ProposalPath("agent", bad.ID)); string(now) != text {
			t.Errorf("%s: the learner rewrote it", name)
		}
	}
	for _, id := range []string{"p-ffffffff", "", "../../x", "@"} {
		if _, err := Approve(store, "agent", []string{id}, "me"); err == nil {
			t.Errorf("approved %q", id)
		}
	}
	if p, err := Get(store, good.ID); err != nil || p.Status != StatusPending {
		t.Errorf("%+v, %v", p, err)
	}
}

// An approval of an earlier version that was cut short, the rule written and the proposal not, can be repeated and undone.
func TestInterruptedApproval(t *testing.T) {
	for name, finish := range map[string]func(t *testing.T, store *state.Store, id string) int{
		"repeated": func(t *testing.T, store *state.Store, id string) int { approve(t, store, id); return 1 },
		"undone": func(t *testing.T, store *state.Store, id string) int {
			if _, err := Undo(store, "agent", id, "me"); err != nil {
				t.Error(err)
			}
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := state.Open(t.TempDir())
			learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
			p := one(t, store)
			rules := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{p.RuleName: p.Rule}}
			saveLearned(t, store, rules)
			if want := finish(t, store, p.ID); len(learned(t, store)) != want {
				t.Errorf("%d rules, want %d", len(learned(t, store)), want)
			}
		})
	}
}

// A newer program may have added a field: an older one goes on, unless what it does not know is a part of the
// rule, which then has another digest.
func TestProposalOfANewerVersion(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	p := one(t, store)
	path := store.ProposalPath("agent", p.ID)
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(pairs ...string) {
		t.Helper()
		text := strings.NewReplacer(pairs...).Replace(string(original))
		if err := state.WriteFile(path, []byte(text), 0o600); err != nil || text == string(original) {
			t.Fatalf("nothing was changed: %v", err)
		}
	}
	write(`"path": "/a"`, `"path": "/a", "only_on_sundays": true`, p.Digest, "sha256:"+strings.Repeat("5", 64))
	if _, err := Approve(store, "agent", []string{p.ID}, "me"); err == nil {
		t.Error("approved more than is proposed")
	}
	write(`"kind"`, `"surprise": {"a": [1]}, "kind"`)
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/a"))
	if now := one(t, store); now.Evidence.Hits != 2 {
		t.Errorf("no evidence was added: %+v", now.Evidence)
	}
	approve(t, store, p.ID)
}

// saveLearned writes approved rules, and nothing of where they come from.
func saveLearned(t *testing.T, store *state.Store, rules *policy.Policy) {
	t.Helper()
	b := store.Batch("agent")
	if err := stageLearned(b, store, "agent", rules, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Write(); err != nil {
		t.Fatal(err)
	}
}

// Rules that somebody added by hand survive reviews.
func TestForeignRulesSurvive(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	const own = "version: 1\nnetwork_policies:\n  mine:\n    endpoints: [{host: own.example, port: 443}]\n    binaries: [{path: /usr/bin/x}]\n"
	if err := state.WriteFile(store.LearnedPath("agent"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	p := one(t, store)
	approve(t, store, p.ID)
	if _, err := Undo(store, "agent", p.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if rules := learned(t, store); len(rules) != 1 || rules["mine"] == nil {
		t.Errorf("learned %+v", rules)
	}
	if err := state.WriteFile(store.LearnedPath("agent"), []byte("version: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Approve(store, "agent", []string{p.ID}, "me"); err == nil {
		t.Error("approved into a file that is not a policy")
	}
}

func TestConcurrentApprovals(t *testing.T) {
	dir := t.TempDir()
	store := state.Open(dir)
	var denials []Denial
	for _, host := range []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"} {
		denials = append(denials, with(connect(), func(d *Denial) { d.Host = host }))
	}
	learnFrom(t, store, permissiveRun("r1"), denials...)
	all, err := List(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			if _, err := Approve(state.Open(dir), "agent", []string{p.ID}, "me"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if rules := learned(t, store); len(rules) != len(denials) {
		t.Errorf("%d rules, want %d", len(rules), len(denials))
	}
}

// Programs may reach one host in ways that exclude each other.
func TestProgramsNeedNotAgree(t *testing.T) {
	store := state.Open(t.TempDir())
	by := func(binary string, d Denial) Denial { return with(d, func(d *Denial) { d.Binary = binary }) }
	learnFrom(t, store, permissiveRun("r1"), by("/usr/bin/curl", request1("GET", "/a")), by("/usr/bin/nc", raw()),
		by("/usr/bin/java", with(connect(), func(d *Denial) { d.TLSSkip = true })),
		by("/usr/bin/mcp", lacking("mcp", "/mcp", policy.L7Match{Method: "initialize"})),
		by("/usr/bin/rpc", lacking("json-rpc", "/mcp", policy.L7Match{Method: "a"})))
	all, err := List(store, "agent")
	if err != nil || len(all) != 5 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	var ids []string
	for _, p := range all {
		ids = append(ids, p.ID)
	}
	approve(t, store, ids...)
	rules := learned(t, store)
	if len(rules) != 5 {
		t.Errorf("%d rules", len(rules))
	}
	for _, r := range rules {
		if !r.Learned {
			t.Errorf("%s does not say where it comes from", r.Name)
		}
	}
	merged := policy.Merge(nil, &policy.Policy{Version: 1, Network: rules})
	if _, err := engine.Compile(merged, engine.Options{}); err != nil {
		t.Error(err)
	}
}
