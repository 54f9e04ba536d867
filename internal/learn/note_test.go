// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/state"
)

// What is no proposal is counted.
func TestNotes(t *testing.T) {
	store := state.Open(t.TempDir())
	l := start1(t, store, permissiveRun("r1"), Options{})
	for i := range 20 {
		l.Note(Note{Kind: NoteAddress, Host: fmt.Sprintf("h%02d\n\x1b.example", i), Port: 443, Binary: "/bin/x", Reason: "private"})
	}
	l.Note(Note{Kind: "nonsense", Host: "a"})
	l.Observe(with(connect(), func(d *Denial) { d.Host = "169.254.169.254" }))
	l.Observe(with(connect(), func(d *Denial) { d.Host = "*.example" }))
	l.Observe(lacking("rest", "/a"))
	l.Observe(request1("*", "/a"))
	l.ObserveFile(access(OpReadDir, "/"))
	closeLearner(t, l)
	if all, err := List(store, "agent"); err != nil || len(all) != 0 {
		t.Errorf("proposals %+v, %v", all, err)
	}
	r := readRun(t, store, "r1")
	counts := map[NoteKind]int{}
	for _, n := range r.Notes {
		counts[n.Kind] = n.Count
		if len(n.Samples) == 0 || len(n.Samples) > maxNoteSamples || strings.ContainsAny(strings.Join(n.Samples, ""), "\n\x1b") {
			t.Errorf("samples %q", n.Samples)
		}
	}
	if counts[NoteAddress] != 21 || counts[NoteUnnamed] != 3 || counts[NoteForbidden] != 1 || counts[NoteOther] != 1 || r.Unproposed != 5 {
		t.Errorf("counts %v, run %+v", counts, r)
	}
	if sum := NotesOf([]RunRecord{r, r}); len(sum) != len(r.Notes) || sum[0].Count != 2*r.Notes[0].Count || !slices.Equal(sum[0].Samples, r.Notes[0].Samples) {
		t.Errorf("sum %+v", sum)
	}
}

func TestSeenIn(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), connect())
	learnFrom(t, store, permissiveRun("r2"))
	learnFrom(t, store, permissiveRun("r3"), connect(), connect())
	enforcing := permissiveRun("strict")
	enforcing.Mode = ModeEnforcing
	learnFrom(t, store, enforcing, connect()) // it leaves no record
	runs, err := Runs(store, "agent")
	if err != nil || len(runs) != 3 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	p := one(t, store)
	if seen, of := p.SeenIn(runs); seen != 3 || of != 4 {
		t.Errorf("%d of %d", seen, of)
	}
	approve(t, store, p.ID)
	later := permissiveRun("r4")
	later.Started = time.Now().Add(time.Hour)
	learnFrom(t, store, later)
	runs, err = Runs(store, "agent")
	if err != nil || len(runs) != 4 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	p = one(t, store)
	if seen, of := p.SeenIn(runs); seen != 3 || of != 4 {
		t.Errorf("with a run after the approval: %d of %d", seen, of)
	}
}

func TestOldRunsAreRemoved(t *testing.T) {
	store := state.Open(t.TempDir())
	run := permissiveRun("old")
	for i := range maxRunRecords + 3 {
		run.ID, run.Started = fmt.Sprintf("old%d", i), start.Add(time.Duration(i)*time.Minute)
		if err := os.MkdirAll(store.PolicyDir("agent")+"/runs", 0o700); err != nil {
			t.Fatal(err)
		}
		data := fmt.Sprintf(`{"version":%q,"run":%q,"started":%q}`, runVersion, run.ID, run.Started.Format(time.RFC3339))
		if err := os.WriteFile(store.RunPath("agent", run.ID), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	learnFrom(t, store, permissiveRun("new"))
	runs, err := Runs(store, "agent")
	if err != nil || len(runs) != maxRunRecords+1 || runs[0].Run != "new" || runs[1].Run != "old3" {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}

// name is a word that looks like no identifier.
func name(i int) string {
	syllables := []string{"ba", "ke", "li", "mo", "nu", "pra", "sto", "tri", "vex", "zan"}
	var b strings.Builder
	for n := i; ; n /= 10 {
		b.WriteString(syllables[n%10])
		if n < 10 {
			return b.String()
		}
	}
}
