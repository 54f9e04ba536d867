// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/state"
)

func matches(pattern, s string) bool { return regexp.MustCompile(pattern).MatchString(s) }

// The test binary is also a learner that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LEARN_TEST_STORE"); dir != "" {
		l := Start(state.Open(dir), permissiveRun(os.Getenv("LEARN_TEST_RUN")), Options{FlushInterval: time.Millisecond})
		fmt.Println("started")
		for i := 0; ; i++ {
			l.Observe(request1("GET", fmt.Sprintf("/p%d/x", i%300)))
			l.Observe(with(connect(), func(d *Denial) { d.Host = fmt.Sprintf("h%d.example", i%40) }))
			time.Sleep(100 * time.Microsecond)
		}
	}
	os.Exit(m.Run())
}

func start1(t *testing.T, store *state.Store, run Run, o Options) *Learner {
	t.Helper()
	l := Start(store, run, o)
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func closeLearner(t *testing.T, l *Learner) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// learnFrom is one run with these denials.
func learnFrom(t *testing.T, store *state.Store, run Run, denials ...Denial) {
	t.Helper()
	l := start1(t, store, run, Options{})
	for _, d := range denials {
		l.Observe(d)
	}
	closeLearner(t, l)
}

func one(t *testing.T, store *state.Store) Proposal {
	t.Helper()
	all, err := List(store, "agent")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d proposals, %v, want 1", len(all), err)
	}
	return all[0]
}

func readRun(t *testing.T, store *state.Store, run string) RunRecord {
	t.Helper()
	var r RunRecord
	if err := state.ReadJSON(store.RunPath("agent", run), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProposalsAppearWhileRunning(t *testing.T) {
	store := state.Open(t.TempDir())
	var mu sync.Mutex
	var events []audit.Event
	l := start1(t, store, permissiveRun("r1"), Options{Record: func(e audit.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	begun := time.Now()
	l.Observe(request1("GET", "/a"))
	for {
		if all, err := List(store, "agent"); err != nil {
			t.Fatal(err)
		} else if len(all) == 1 {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("no proposal appeared")
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.Observe(request1("GET", "/a")) // no new rule, no new event
	l.Observe(with(connect(), func(d *Denial) { d.Host = "127.0.0.1" }))
	closeLearner(t, l)

	p := one(t, store)
	if p.Evidence.Hits != 2 || p.Status != StatusPending || len(p.Provenance.Runs) != 1 || p.Provenance.Runs[0].Hits != 2 {
		t.Errorf("proposal %+v", p)
	}
	if len(events) != 1 || events[0].Activity != "PROPOSED" || events[0].Class != audit.ClassConfig || !strings.Contains(events[0].Message, p.ID) {
		t.Errorf("events %+v", events)
	}
	r := readRun(t, store, "r1")
	if r.Ended == nil || r.Ended.Before(start) || r.Denials != 3 || r.Proposals != 1 || r.Unproposed != 1 || r.Lost != 0 ||
		r.Mode != ModePermissive || r.Image != "alpine:3" || r.TTL != "1h" || r.BasePolicySHA256 != "sha256:base" || !r.Started.Equal(start) {
		t.Errorf("run %+v", r)
	}
	l.Observe(connect()) // after Close
	closeLearner(t, l)
	if p := one(t, store); p.Evidence.Hits != 2 {
		t.Errorf("a denial after Close counts")
	}
}

// A permissive run is on record though nothing was denied; an enforcing one leaves no record.
func TestRunRecords(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("quiet"))
	enforcing := permissiveRun("strict")
	enforcing.Mode = ModeEnforcing
	learnFrom(t, store, enforcing, with(connect(), func(d *Denial) { d.Permissive = false }))
	if runs, err := store.Runs("agent"); err != nil || len(runs) != 1 || runs[0] != "quiet" {
		t.Errorf("runs %q, %v", runs, err)
	}
	if p := one(t, store); p.Provenance.Mode != ModeEnforcing {
		t.Errorf("mode %q", p.Provenance.Mode)
	}
	learnFrom(t, store, permissiveRun("r2"), connect())
	if p := one(t, store); p.Provenance.Mode != ModePermissive || len(p.Provenance.Runs) != 2 {
		t.Errorf("provenance %+v", p.Provenance)
	}
}

func TestEvidenceGrowsAcrossRuns(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), connect())
	first := one(t, store)
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/a"))
	learnFrom(t, store, permissiveRun("r3"), request1("POST", "/b"), request1("GET", "/a"))
	p := one(t, store)
	if p.ID != first.ID || p.Digest == first.Digest || len(p.Rule.Endpoints[0].Rules) != 2 || p.Evidence.Hits != 4 || len(p.Provenance.Runs) != 3 {
		t.Errorf("proposal %+v", p)
	}
	learnFrom(t, store, permissiveRun("r4"), raw(), request1("GET", "/c"))
	if p = one(t, store); len(p.Rule.Endpoints[0].Rules) != 0 || p.SecurityNotes[0] != noteMixed {
		t.Errorf("proposal %+v", p)
	}
	learnFrom(t, store, permissiveRun("r5"), request1("GET", "/d"))
	if again := one(t, store); again.Digest != p.Digest {
		t.Errorf("a rule for connections became one for requests: %+v", again.Rule)
	}
}

// Containers that share a policy add up, whoever writes when.
func TestConcurrentLearners(t *testing.T) {
	dir := t.TempDir()
	const learners, each = 4, 60
	var wg sync.WaitGroup
	for n := range learners {
		l := start1(t, state.Open(dir), permissiveRun(fmt.Sprintf("r%d", n)), Options{FlushInterval: time.Millisecond})
		wg.Go(func() {
			for i := range each {
				l.Observe(request1("GET", fmt.Sprintf("/of%d/x%d", n, i%5)))
				l.Observe(with(connect(), func(d *Denial) { d.Host = fmt.Sprintf("h%d.example", i%10) }))
				time.Sleep(time.Millisecond)
			}
			if err := l.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := List(state.Open(dir), "agent")
	if err != nil || len(all) != 11 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	for _, p := range all {
		want, rules := learners*each/10, 0
		if p.target().host == "api.github.com" {
			want, rules = learners*each, learners*5
		}
		if p.Evidence.Hits != want || len(p.Rule.Endpoints[0].Rules) != rules || len(p.Provenance.Runs) != learners {
			t.Errorf("%s: %d hits, %d rules, %d runs, want %d, %d, %d", p.RuleName, p.Evidence.Hits,
				len(p.Rule.Endpoints[0].Rules), len(p.Provenance.Runs), want, rules, learners)
		}
	}
}

// A learner that is killed at any instant leaves whole files, and takes no decision with it.
func TestKilledLearner(t *testing.T) {
	dir := t.TempDir()
	store := state.Open(dir)
	learnFrom(t, store, permissiveRun("before"), connect())
	decided := one(t, store)
	if err := Reject(store, "agent", decided.ID, "no", "me"); err != nil {
		t.Fatal(err)
	}
	learnFrom(t, store, permissiveRun("before2"), with(connect(), func(d *Denial) { d.Host = "kept.example" }))
	kept := proposalOf(t, store, "kept.example")
	if _, err := Approve(store, "agent", []string{kept.ID}, "me"); err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "LEARN_TEST_STORE="+dir, fmt.Sprintf("LEARN_TEST_RUN=r%d", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fscanln(out, new(string))
		time.Sleep(time.Duration(60+17*round) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if _, err := List(store, "agent"); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if p := proposalOf(t, store, "kept.example"); p.Status != StatusApproved {
			t.Fatalf("the decision is lost: %+v", p)
		}
	}
	if learned, err := LearnedPolicy(store, "agent"); err != nil || learned.Network[kept.RuleName] == nil {
		t.Errorf("learned %+v, %v", learned, err)
	}
	learnFrom(t, store, permissiveRun("after"), connect()) // works, and tidies up
	for _, sub := range []string{"", "/proposals", "/runs"} {
		entries, err := os.ReadDir(store.PolicyDir("agent") + sub)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("left over: %s", e.Name())
			}
		}
	}
}

func proposalOf(t *testing.T, store *state.Store, host string) Proposal {
	t.Helper()
	all, err := List(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.target().host == host {
			return p
		}
	}
	t.Fatalf("no proposal for %s", host)
	return Proposal{}
}

// A workload that tries to fill memory or disk fails, and it shows.
func TestLearnerIsBounded(t *testing.T) {
	store := state.Open(t.TempDir())
	l := start1(t, store, permissiveRun("r1"), Options{FlushInterval: time.Hour})
	for i := range 3 * maxTargets {
		l.Observe(with(connect(), func(d *Denial) { d.Host = fmt.Sprintf("h%d.example", i) }))
	}
	l.mu.Lock()
	waiting, lost := len(l.waiting), l.record.Lost
	l.mu.Unlock()
	if waiting != maxTargets || lost != 2*maxTargets {
		t.Errorf("%d wait, %d lost", waiting, lost)
	}
	long := strings.Repeat("/"+strings.Repeat("x", 100), 39)
	for i := range flood(15_000) {
		l.Observe(with(request1("GET", fmt.Sprintf("/m%d%s", i, long)), func(d *Denial) {
			d.Host, d.Method = fmt.Sprintf("h%d.example", i%1000), "M"+string(rune('A'+i%26))
		}))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 2*maxWaiting {
		t.Errorf("%d bytes wait", l.size)
	}
	truncated := false
	for _, e := range l.waiting {
		truncated = truncated || e.truncated
	}
	if !truncated {
		t.Error("nothing says that evidence was lost")
	}
	l.waiting = map[target]*Evidence{} // thousands of files prove nothing more
}

// What could not be written is written later.
func TestWritesAreRetried(t *testing.T) {
	dir := t.TempDir()
	blocker := dir + "/policies" // a file where the directory should be
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := state.Open(dir)
	l := start1(t, store, permissiveRun("r1"), Options{FlushInterval: 5 * time.Millisecond})
	l.Observe(request1("GET", "/a"))
	if err := l.Flush(t.Context()); err == nil {
		t.Fatal("written, though the directory cannot be made")
	}
	l.Observe(request1("GET", "/b"))
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	closeLearner(t, l)
	if p := one(t, store); p.Evidence.Hits != 2 || len(p.Rule.Endpoints[0].Rules) != 2 {
		t.Errorf("proposal %+v", p)
	}
}

func TestCloseReportsFailure(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/policies", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := Start(state.Open(dir), permissiveRun("r1"), Options{})
	l.Observe(connect())
	if err := l.Close(t.Context()); err == nil {
		t.Error("evidence was lost without an error")
	}
}

// Somebody holding the lock delays neither Observe nor, beyond its context, Close.
func TestNothingWaitsForTheLock(t *testing.T) {
	store := state.Open(t.TempDir())
	unlock, err := store.Lock("agent")
	if err != nil {
		t.Fatal(err)
	}
	l := start1(t, store, permissiveRun("r1"), Options{FlushInterval: time.Millisecond})
	for range 100 {
		l.Observe(connect())
		time.Sleep(100 * time.Microsecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("closed without the lock")
	}
	unlock()
	closeLearner(t, l)
	if p := one(t, store); p.Evidence.Hits != 100 {
		t.Errorf("%d hits", p.Evidence.Hits)
	}
}

// A target whose short id is another's, as a workload could arrange, does not get at
// that one's proposal.
func TestIDCollision(t *testing.T) {
	store := state.Open(t.TempDir())
	victim := newEvidence("agent", must(targetOf(connect())))
	other := with(connect(), func(d *Denial) { d.Host = "other.example" })
	victim.id = shortID("agent", must(targetOf(other))) // as if the hashes were equal
	victim.add(permissiveRun("r0"), connect())
	p, ok := newProposal(victim)
	if !ok {
		t.Fatal("no proposal")
	}
	if err := saveProposal(store, &p); err != nil {
		t.Fatal(err)
	}
	if _, err := Approve(store, "agent", []string{p.ID}, "me"); err != nil {
		t.Fatal(err)
	}
	learnFrom(t, store, permissiveRun("r1"), other)
	learnFrom(t, store, permissiveRun("r2"), other)
	if q := proposalOf(t, store, "other.example"); q.ID == p.ID || q.Status != StatusPending || q.Evidence.Hits != 2 {
		t.Errorf("proposal %+v", q)
	}
	if q := proposalOf(t, store, "api.github.com"); q.Status != StatusApproved || q.Evidence.Hits != 1 {
		t.Errorf("proposal %+v", q)
	}
}

func FuzzObserve(f *testing.F) {
	f.Add("api.github.com", "/usr/bin/curl", "GET", "/a/1", "reason")
	f.Add("\xff*\n", "/\x1b", "*", "/a/*/{x}", "\u202e")
	f.Fuzz(func(t *testing.T, host, binary, method, path, reason string) {
		d := with(request1(method, path), func(d *Denial) {
			d.Host, d.Binary, d.Reason, d.IPs = host, binary, reason, []netip.Addr{{}}
		})
		// No request makes a rule that is not valid: it would take the others with it.
		e := newEvidence("agent", must(targetOf(connect())))
		e.add(permissiveRun("r"), request1(method, path))
		if rule := BuildRule(e); rule != nil {
			if err := rule.Validate(rule.Name); err != nil {
				t.Fatalf("%s %q: %v", method, path, err)
			}
		}
		for _, p := range proposeAll(d, with(d, func(d *Denial) { d.Kind = KindConnect })) {
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			if _, err := p.evidence(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
