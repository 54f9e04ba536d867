package learn

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/state"
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

// flood returns how many different things a hostile workload does: some more than there
// is room for, or as many as LEARN_FLOOD says. For a million it takes minutes.
func flood(some int) int {
	if n, err := strconv.Atoi(os.Getenv("LEARN_FLOOD")); err == nil {
		return n
	}
	return some
}

// Ever more different hosts and paths fit in bounded memory and files, and it shows on the proposals.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	store := state.Open(t.TempDir())
	l := start1(t, store, permissiveRun("r1"), Options{FlushInterval: time.Hour})
	many := flood(8000)
	for i := range many {
		l.Observe(request1("GET", fmt.Sprintf("/%s/%s", name(i%3000), name(i))))
	}
	for i := range many {
		l.ObserveFile(access(OpRead, "/data/"+name(i%1000)+"/"+name(i)))
		l.ObserveFile(access(OpCreate, "/etc/"+name(i)))
		l.Note(Note{Kind: NoteAddress, Host: name(i)})
	}
	for i := range many {
		l.Observe(with(connect(), func(d *Denial) { d.Host = name(i) + ".example" }))
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("heap %d MiB", m.HeapAlloc>>20)
	if m.HeapAlloc > 128<<20 {
		t.Errorf("the heap has %d MiB", m.HeapAlloc>>20)
	}
	l.mu.Lock()
	hosts, lost := len(l.waiting), l.record.Lost
	for target := range l.waiting { // thousands of files prove nothing more
		if strings.HasSuffix(target.host, ".example") {
			delete(l.waiting, target)
		}
	}
	l.mu.Unlock()
	if hosts > maxTargets || lost < many-maxTargets {
		t.Errorf("%d targets wait, %d denials are lost", hosts, lost)
	}
	closeLearner(t, l)
	all, err := List(store, "agent")
	if err != nil || len(all) != 3 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	for _, p := range all {
		info, err := os.Stat(store.ProposalPath("agent", p.ID))
		if err != nil || info.Size() > state.MaxFileSize {
			t.Errorf("%s: %v, %v", p.RuleName, info, err)
		}
		if !p.Truncated() {
			t.Errorf("%s is not marked: %q", p.RuleName, p.SecurityNotes)
		}
		t.Logf("%s: %d KiB", p.RuleName, info.Size()>>10)
		for _, grant := range Grants(orEmpty(p.Rule)) {
			if grant == "GET /**" || grant == "GET **" {
				t.Errorf("%s allows %s", p.RuleName, grant)
			}
		}
	}
	if r := readRun(t, store, "r1"); r.Lost != lost {
		t.Errorf("lost %d of %d", r.Lost, lost)
	}
}

func orEmpty(r *policy.Rule) *policy.Rule {
	if r == nil {
		return &policy.Rule{}
	}
	return r
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
