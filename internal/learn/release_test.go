// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
)

// What a release has written is learned from, decided on and undone by every later one. The first of them
// had no flags, but notes.
func TestReleases(t *testing.T) {
	for _, release := range []string{"before-0.1.0", "release-0.1.0"} {
		t.Run(release, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", release))); err != nil {
				t.Fatal(err)
			}
			// A copy is for all to read; the original is not.
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				return errors.Join(err, os.Chmod(path, 0o700))
			})
			if err != nil {
				t.Fatal(err)
			}
			readsRelease(t, state.Open(dir))
		})
	}
}

func readsRelease(t *testing.T, store *state.Store) {
	for host, want := range map[string]Flags{
		"api.github.com": {}, "git.example": {}, "skip.example": {}, "odd.example": {Inexpressible: true},
		"new.example": {Replaced: true}, "wide.example": {Widened: true}, "cut.example": {Truncated: true},
	} {
		if p := proposalOf(t, store, host); p.Flags != want {
			t.Errorf("%s: %+v, want %+v", host, p.Flags, want)
		}
	}
	for name, want := range map[string]Flags{
		"/deep": {Widened: true}, "/sys": {Truncated: true}, "/work": {}, "/data": {}, "/root/.ssh": {},
	} {
		if p := tree(t, store, name); p.Flags != want {
			t.Errorf("%s: %+v, want %+v", name, p.Flags, want)
		}
	}
	work := tree(t, store, "/work")
	if g := work.FileGrants(); len(g) != 1 || g[0].Reason != ReasonEntry {
		t.Errorf("grants %+v", g)
	}
	if runs, err := Runs(store, "agent"); err != nil || len(runs) != 3 || runs[0].Ended == nil || runs[1].Denials != 300 {
		t.Errorf("runs %+v, %v", runs, err)
	}
	// It grows, and what was decided and cut short stays so.
	learnFrom(t, store, permissiveRun("r9"), request1("GET", "/another"), with(raw(), func(d *Denial) { d.Host = "git.example" }),
		with(request1("GET", "/x"), func(d *Denial) { d.Host = "cut.example" }))
	if p := proposalOf(t, store, "api.github.com"); p.Status != StatusPending || len(p.Rule.Endpoints[0].Rules) != 2 {
		t.Errorf("grown %+v", p)
	}
	if p := proposalOf(t, store, "git.example"); p.Status != StatusApproved || p.Evidence.Hits != 2 {
		t.Errorf("approved %+v", p)
	}
	if p := proposalOf(t, store, "cut.example"); !p.Flags.Truncated || p.Evidence.Hits != 2 {
		t.Errorf("cut short %+v", p)
	}
	if p := tree(t, store, "/root/.ssh"); p.Status != StatusRejected {
		t.Errorf("rejected %+v", p)
	}
	wantFiles(t, store, "/data/a", "")
	approve(t, store, proposalOf(t, store, "api.github.com").ID, tree(t, store, "/work").ID)
	for _, id := range []string{tree(t, store, "/data").ID, proposalOf(t, store, "git.example").ID} {
		if _, err := Undo(store, "agent", id, "me"); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, store, "", "/work")
	if rules := learned(t, store); len(rules) != 1 {
		t.Errorf("learned %v", rules)
	}
}

// A newer program may add to a file what this one does not know. Only what it cannot read at all is refused.
func TestNewerFiles(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"))
	p := one(t, store)
	amend := func(path, key string, value any) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{}
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		doc[key] = value
		if err := state.WriteJSON(path, doc); err != nil {
			t.Fatal(err)
		}
	}
	proposal, run := store.ProposalPath("agent", p.ID), store.RunPath("agent", "r1")
	amend(proposal, "shadow", map[string]any{"of": 7})
	amend(proposal, "version", ProposalVersion+".3")
	amend(proposal, "flags", map[string]any{"truncated": true, "weird": true})
	amend(run, "budget", 7)
	if p := one(t, store); !p.Flags.Truncated {
		t.Errorf("%+v", p)
	}
	if _, err := Runs(store, "agent"); err != nil {
		t.Error(err)
	}
	learnFrom(t, store, permissiveRun("r2"), request1("GET", "/a"))
	if p := one(t, store); p.Evidence.Hits != 2 || !p.CutShort() {
		t.Errorf("%+v", p)
	}
	// Notes alone still count: an older program has written the proposal.
	amend(proposal, "flags", nil)
	if p := one(t, store); !p.CutShort() || !slices.Contains(p.SecurityNotes, noteTruncated) {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct{ path, key, value, want string }{
		{proposal, "version", "openshell.ai/proposal/v2", `version "openshell.ai/proposal/v2": a newer openshell wrote it`},
		{proposal, "version", "openshell.ai/proposal", `version "openshell.ai/proposal": must be "openshell.ai/proposal/v1"`},
		{run, "version", "openshell.ai/run/v2", `run r1: version "openshell.ai/run/v2": a newer openshell wrote it`},
	} {
		amend(c.path, c.key, c.value)
		_, err := List(store, "agent")
		if _, err2 := Runs(store, "agent"); err == nil {
			err = err2
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.value, err)
		}
		amend(proposal, "version", ProposalVersion)
	}
	amend(run, "version", runVersion)
	amend(proposal, "kind", "budget")
	if _, err := List(store, "agent"); err == nil || !strings.Contains(err.Error(), `kind "budget": is not known to this openshell, which knows filesystem and network`) {
		t.Errorf("%v", err)
	}
}

// TestWriteRelease writes the files of a release to the state directory that LEARN_RELEASE names: to be
// kept below testdata from then on. Newer code has to read them.
func TestWriteRelease(t *testing.T) {
	dir := os.Getenv("LEARN_RELEASE")
	if dir == "" {
		t.Skip("LEARN_RELEASE is not set")
	}
	store := state.Open(dir)
	on := func(host string, d Denial) Denial { d.Host = host; return d }
	many := make([]Denial, 0, 300)
	for i := range 300 {
		many = append(many, on("wide.example", request1("GET", fmt.Sprintf("/%c%c/x%dy", 'a'+i%26, 'a'+i/26, i))))
	}
	learnFrom(t, store, permissiveRun("r1"), request1("GET", "/a"), on("git.example", raw()),
		on("skip.example", with(connect(), func(d *Denial) { d.TLSSkip = true })),
		on("odd.example", request1("GET", "/a")), on("odd.example", request1("NO*", "/a")),
		on("new.example", connect()), on("new.example", with(connect(), func(d *Denial) { d.SHA256 = "bb" })))
	learnFrom(t, store, permissiveRun("r2"), many...)
	cut := on("cut.example", request1("GET", "/a"))
	e := newEvidence("agent", target{host: "cut.example", port: 443, binary: cut.Binary})
	e.add(permissiveRun("r2"), cut)
	e.truncated = true
	p, _ := newProposal(e)
	if err := saveProposal(store, &p); err != nil {
		t.Fatal(err)
	}
	var deep []FileAccess
	for i := range 2 * maxFiles {
		deep = append(deep, access(OpRead, fmt.Sprintf("/deep/d%d/f%d", i%7, i)))
	}
	for i := range 2 * maxFiles {
		deep = append(deep, access(OpWrite, fmt.Sprintf("/sys/x%d", i)))
	}
	learnFiles(t, store, "r3", append(deep, access(OpRead, "/data/a"), access(OpCreate, "/work/x"), access(OpRead, "/root/.ssh/id_rsa"))...)
	approve(t, store, tree(t, store, "/data").ID, proposalOf(t, store, "git.example").ID)
	if err := Reject(store, "agent", tree(t, store, "/root/.ssh").ID, "no", "me"); err != nil {
		t.Fatal(err)
	}
}
