// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// storeInMemory is for tests that write thousands of files, and not how long a disk takes.
func storeInMemory(t *testing.T) (store *state.Store, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "learn-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return state.Open(dir), dir
}

// missing is a request that the rules of a declared endpoint lack.
func missing(endpoint int, path string) Denial {
	return with(request1("GET", "/"), func(d *Denial) {
		d.L7, d.EndpointPath = policy.ProtocolREST, fmt.Sprintf("/e%d/**", endpoint)
		d.Missing = []policy.L7Match{{Method: "GET", Path: fmt.Sprintf("/e%d%s", endpoint, path)}}
	})
}

// One endpoint with many requests does not push out what is known of the others.
func TestManyRequestsOfOneEndpoint(t *testing.T) {
	store, _ := storeInMemory(t)
	learnFrom(t, store, permissiveRun("r1"), missing(1, "/x"))
	var many []Denial
	for i := range 10_000 {
		many = append(many, missing(0, "/"+name(i%400)+"/"+name(i)))
	}
	learnFrom(t, store, permissiveRun("r2"), many...)
	learnFrom(t, store, permissiveRun("r3"), missing(2, "/x"))
	p := one(t, store)
	if len(p.Rule.Endpoints) != 3 || p.CutShort() {
		t.Errorf("%d endpoints, notes %q", len(p.Rule.Endpoints), p.SecurityNotes)
	}
}

// What one file cannot hold is not tried again for ever: the proposal says that it lacks something, and
// other evidence is not kept waiting.
func TestProposalTooLargeForAFile(t *testing.T) {
	store, _ := storeInMemory(t)
	long := strings.Repeat("/"+strings.Repeat("words", 20), 9)
	var few, many []Denial
	for i := range 1800 {
		for endpoint := range 4 {
			many = append(many, missing(endpoint, fmt.Sprintf("/%s/%s%s", name(i%400), name(i), long)))
		}
	}
	few = many[:4]
	learnFrom(t, store, permissiveRun("r1"), few...)
	before := one(t, store)
	l := start1(t, store, permissiveRun("r2"), Options{})
	for _, d := range many {
		l.Observe(d)
	}
	closeLearner(t, l)
	p := one(t, store)
	if !p.CutShort() || p.Evidence.Hits <= before.Evidence.Hits {
		t.Errorf("%d hits, notes %q", p.Evidence.Hits, p.SecurityNotes)
	}
	learnFrom(t, store, permissiveRun("r3"), with(connect(), func(d *Denial) { d.Host = "other.example" }))
	if all, err := List(store, "agent"); err != nil || len(all) != 2 {
		t.Errorf("%d proposals, %v", len(all), err)
	}
}

// Proposals together have a bound too: beyond it those that there are get a mark, and new ones are
// counted as lost.
func TestProposalsAreBoundedTogether(t *testing.T) {
	store, _ := storeInMemory(t)
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	small := one(t, store)
	padding := strings.Repeat(" ", state.MaxFileSize-1)
	for i := range maxProposalBytes / state.MaxFileSize {
		if err := state.WriteFile(store.ProposalPath("agent", fmt.Sprintf("p-%08d", i)), []byte(padding), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/b"), request1("GET", "/c"),
		with(connect(), func(d *Denial) { d.Host = "new.example" }),
		with(connect(), func(d *Denial) { d.Host = "127.0.0.1" })) // no rule could
	p, err := Get(store, small.ID)
	if err != nil || !p.CutShort() || p.Digest != small.Digest || p.Evidence.Hits != 3 || len(p.Provenance.Runs) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if r := readRun(t, store, "r2"); r.Lost != 1 || r.Unproposed != 1 {
		t.Errorf("%d lost, %d not proposed", r.Lost, r.Unproposed)
	}
	if ids, err := store.ProposalIDs("agent"); err != nil || len(ids) != 1+maxProposalBytes/state.MaxFileSize {
		t.Errorf("%d proposals, %v", len(ids), err)
	}
}
