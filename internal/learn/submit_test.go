// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

func submission(operations ...Operation) Submission {
	return Submission{Policy: "agent", Run: permissiveRun("r1"), Binary: "/usr/bin/agent", SHA256: "aa", Ancestors: []string{"/bin/sh"},
		Intent: "read the issues\x1b[2J", Operations: operations}
}

func operation(name string, e ...policy.Endpoint) Operation {
	return Operation{RuleName: name, Rule: &policy.Rule{Name: "whatever", Endpoints: e, Binaries: []policy.Binary{{Path: "/usr/bin/agent"}}}}
}

func issues(host string) policy.Endpoint {
	return policy.Endpoint{Host: host, Port: 443, Protocol: "rest", Enforcement: "enforce",
		Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: "/issues"}}}}
}

func submit(t *testing.T, store *state.Store, s Submission) []Submitted {
	t.Helper()
	results, err := Submit(store, s)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestSubmit(t *testing.T) {
	store := state.Open(t.TempDir())
	several := operation("issues", issues("api.github.com"), policy.Endpoint{Host: "git.example", Ports: []uint16{22, 9418}})
	several.Rule.Binaries = append(several.Rule.Binaries, policy.Binary{Path: "/usr/bin/git"})
	got := submit(t, store, submission(several))
	if len(got) != 1 || !got[0].Accepted || got[0].Reason != "" || len(got[0].ID) != agentIDLength {
		t.Fatalf("submitted %+v", got)
	}
	p := one(t, store)
	if p.ID != got[0].ID || p.Status != StatusPending || p.Provenance.Mode != ModeAgent || p.Confidence != 0.75 ||
		p.Rationale != `read the issues\x1b[2J` || p.Binary != "/usr/bin/agent" || len(p.Provenance.Runs) != 1 || p.Rule.Name != p.RuleName {
		t.Errorf("proposal %+v", p)
	}
	if want := []string{"The rule is for '/usr/bin/git', and '/usr/bin/agent' asks for it.", "Everything may be said to 'git.example'."}; !slices.Equal(p.SecurityNotes, want) {
		t.Errorf("notes %q", p.SecurityNotes)
	}
	if again := submit(t, store, submission(several)); !again[0].Accepted || again[0].ID != p.ID || again[0].Reason != "is pending already" {
		t.Errorf("again %+v", again)
	}

	approve(t, store, p.ID+"@"+p.Digest)
	if rules := learned(t, store); len(rules) != 1 || !sameRule(rules[p.RuleName], p.Rule) {
		t.Errorf("learned %+v", rules)
	}
	if again := submit(t, store, submission(several)); !again[0].Accepted || again[0].Reason != "is approved already" {
		t.Errorf("after approval %+v", again)
	}
	if _, err := Undo(store, "agent", p.ID, "me"); err != nil || len(learned(t, store)) != 0 {
		t.Errorf("undo: %v", err)
	}
	if err := Reject(store, "agent", p.ID, "no git", "me"); err != nil {
		t.Fatal(err)
	}
	if again := submit(t, store, submission(several)); again[0].Accepted || again[0].ID != p.ID || again[0].Reason != "was rejected: no git" {
		t.Errorf("after rejection %+v", again)
	}
	// What the same workload is seen to do is a proposal of its own.
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/issues"))
	if all, err := List(store, "agent"); err != nil || len(all) != 2 {
		t.Errorf("%d proposals, %v", len(all), err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	bad := func(change func(*policy.Rule)) Operation {
		op := operation("x", issues("api.github.com"))
		change(op.Rule)
		return op
	}
	for name, op := range map[string]Operation{
		"no rule":         {RuleName: "x"},
		"no name":         operation(" ", issues("a.example")),
		"no endpoints":    operation("x"),
		"any binary":      bad(func(r *policy.Rule) { r.Binaries = nil }),
		"no binaries":     bad(func(r *policy.Rule) { r.Binaries = []policy.Binary{} }),
		"invalid host":    bad(func(r *policy.Rule) { r.Endpoints[0].Host = "*.com" }),
		"control in host": bad(func(r *policy.Rule) { r.Endpoints[0].Host = "a\nb.example" }),
		"metadata":        bad(func(r *policy.Rule) { r.Endpoints[0].Host = "metadata.google.internal" }),
		"loopback":        bad(func(r *policy.Rule) { r.Endpoints[0].Host = "127.0.0.1" }),
		"invalid path":    bad(func(r *policy.Rule) { r.Endpoints[0].Rules[0].Allow.Path = "issues" }),
		"many binaries":   bad(func(r *policy.Rule) { r.Binaries = slices.Repeat(r.Binaries, maxAgentParts+1) }),
		"many rules":      bad(func(r *policy.Rule) { r.Endpoints[0].Rules = slices.Repeat(r.Endpoints[0].Rules, maxAgentRules+1) }),
	} {
		t.Run(name, func(t *testing.T) {
			store := state.Open(t.TempDir())
			got := submit(t, store, submission(op, operation("good", issues("good.example"))))
			if got[0].Accepted || got[0].Reason == "" || got[0].ID != "" || strings.ContainsAny(got[0].Reason, "\n\x1b") {
				t.Errorf("submitted %+v", got[0])
			}
			if !got[1].Accepted || one(t, store).ID != got[1].ID {
				t.Errorf("the good one: %+v", got[1])
			}
		})
	}
	store := state.Open(t.TempDir())
	for _, s := range []Submission{submission(), submission(make([]Operation, maxOperations+1)...)} {
		if _, err := Submit(store, s); err == nil {
			t.Error("submitted")
		}
	}
}

func TestSubmitNotes(t *testing.T) {
	for note, e := range map[string]policy.Endpoint{
		"Host '*.github.com' is a pattern":                    issues("*.github.com"),
		"An endpoint has no host":                             {Port: 443, AllowedIPs: []string{"140.82.112.0/20"}},
		"allowed_ips has '10.0.0.0/8', which is not public":   {Host: "a.example", Port: 443, AllowedIPs: []string{"10.0.0.0/8"}},
		"allowed_ips has '0.0.0.0/1', which is not public":    {Host: "a.example", Port: 443, AllowedIPs: []string{"64.0.0.0/2"}},
		"Destination '192.168.1.1' is an internal":            {Host: "192.168.1.1", Port: 443},
		"Port 5432 is a database":                             {Host: "a.example", Port: 5432},
		"TLS to 'a.example' is passed on uninspected":         {Host: "a.example", Port: 443, TLS: "skip"},
		"Every path of 'a.example' may be read and written":   {Host: "a.example", Port: 443, Protocol: "rest", Enforcement: "enforce", Access: "read-write"},
		"What the rules for 'a.example' do not allow is only": {Host: "a.example", Port: 443, Protocol: "rest", Rules: issues("").Rules},
		"Path '/repos/**' of 'a.example' covers":              {Host: "a.example", Port: 443, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: "/repos/**"}}}},
		"Any method is allowed on 'a.example'":                {Host: "a.example", Port: 443, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "*", Path: "/a"}}}},
		"DELETE is allowed on 'a.example'":                    {Host: "a.example", Port: 443, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "DELETE", Path: "/a"}}}},
	} {
		notes := ruleNotes(operation("x", e).Rule, "/usr/bin/agent")
		if strings.HasPrefix(note, "allowed_ips has '0.0.0.0/1'") {
			note = "allowed_ips has '64.0.0.0/2', which is not public"
		}
		if !slices.ContainsFunc(notes, func(s string) bool { return strings.HasPrefix(s, note) }) {
			t.Errorf("notes %q, want %q", notes, note)
		}
	}
	if notes := ruleNotes(operation("x", issues("a.example")).Rule, "/usr/bin/agent"); len(notes) != 0 {
		t.Errorf("a narrow rule has notes: %q", notes)
	}
}

func TestAgentsAreBounded(t *testing.T) {
	store := state.Open(t.TempDir())
	var last Submitted
	for i := 0; i < maxAgentPending+maxOperations; i += maxOperations {
		var ops []Operation
		for j := range maxOperations {
			ops = append(ops, operation("x", issues(fmt.Sprintf("h%d.example", i+j))))
		}
		results := submit(t, store, submission(ops...))
		last = results[len(results)-1]
	}
	if ids, err := store.ProposalIDs("agent"); err != nil || len(ids) != maxAgentPending || last.Accepted || last.Reason == "" {
		t.Errorf("%d proposals, %v; the last %+v", len(ids), err, last)
	}
}

// What an approved rule allows needs no second look, until that one is undone.
func TestSuperseded(t *testing.T) {
	store := state.Open(t.TempDir())
	one42 := issues("api.github.com") // within what is learned, though it is written in another way
	one42.Rules[0].Allow.Path = "/issues/42"
	asked := submit(t, store, submission(operation("issues", issues("api.github.com")), operation("other", issues("other.example")), operation("one", one42)))
	learnFrom(t, store, permissiveRun("r1"), with(request1("GET", "/issues"), func(d *Denial) { d.Binary = "/usr/bin/agent" }),
		with(request1("GET", "/issues/7"), func(d *Denial) { d.Binary = "/usr/bin/agent" }))
	var seen Proposal
	all, err := List(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Provenance.Mode == ModePermissive {
			seen = p
		}
	}
	r := approve(t, store, seen.ID)
	if len(r.Superseded) != 2 || r.Superseded[0].ID == asked[1].ID || r.Superseded[1].ID == asked[1].ID {
		t.Errorf("superseded %+v", r.Superseded)
	}
	if p, _ := Get(store, asked[0].ID); p.Status != StatusSuperseded || p.SupersededBy != seen.ID {
		t.Errorf("proposal %+v", p)
	}
	if p, _ := Get(store, asked[1].ID); p.Status != StatusPending {
		t.Errorf("the other is %q", p.Status)
	}
	if again := submit(t, store, submission(operation("issues", issues("api.github.com")))); again[0].Accepted || !strings.Contains(again[0].Reason, seen.ID) {
		t.Errorf("asked again: %+v", again)
	}
	if _, err := Undo(store, "agent", seen.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if p, _ := Get(store, asked[0].ID); p.Status != StatusPending || p.SupersededBy != "" {
		t.Errorf("after undo %+v", p)
	}
}
