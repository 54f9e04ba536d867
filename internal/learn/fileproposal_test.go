// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"os"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

func learnFiles(t *testing.T, store *state.Store, run string, accesses ...FileAccess) {
	t.Helper()
	l := start1(t, store, permissiveRun(run), Options{Files: func() FileRules { return FileRules{ReadOnly: []string{"/usr", "/proc"}, ReadWrite: []string{"/tmp"}} }})
	for _, a := range accesses {
		l.ObserveFile(a)
	}
	closeLearner(t, l)
}

// tree is the proposal of a tree.
func tree(t *testing.T, store *state.Store, name string) Proposal {
	t.Helper()
	all, err := List(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Evidence.Tree == name {
			return p
		}
	}
	t.Fatalf("no proposal for %s in %+v", name, all)
	return Proposal{}
}

func learnedFiles(t *testing.T, store *state.Store) policy.Filesystem {
	t.Helper()
	p, err := LearnedPolicy(store, "agent")
	if err != nil {
		t.Fatal(err)
	}
	if p.Filesystem == nil {
		return policy.Filesystem{}
	}
	return *p.Filesystem
}

func wantFiles(t *testing.T, store *state.Store, readOnly, readWrite string) {
	t.Helper()
	f := learnedFiles(t, store)
	if got := strings.Join(f.ReadOnly, " "); got != readOnly {
		t.Errorf("read_only %q, want %q", got, readOnly)
	}
	if got := strings.Join(f.ReadWrite, " "); got != readWrite {
		t.Errorf("read_write %q, want %q", got, readWrite)
	}
}

func TestFileProposals(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFiles(t, store, "r1", access(OpRead, "/data/a"), access(OpCreate, "/work/x"), access(OpRead, "/root/.ssh/id_rsa"),
		access(OpRead, "/usr/lib/x"), access(OpWrite, "/tmp/x"), access(OpRead, "/proc/77/maps")) // granted
	if all, err := List(store, "agent"); err != nil || len(all) != 3 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	data, work, ssh := tree(t, store, "/data"), tree(t, store, "/work"), tree(t, store, "/root/.ssh")
	if data.Kind != KindFilesystem || data.Status != StatusPending || data.Rule != nil || data.Binary != "" ||
		!slices.Equal(data.Filesystem.ReadOnly, []string{"/data/a"}) || data.Filesystem.ReadWrite != nil || data.Evidence.Hits != 1 ||
		data.Rationale != "Allow to read /data/a." || data.Evidence.Reasons["the policy does not grant /data"] != 1 || data.RuleName != "files_data_"+data.ID[2:] {
		t.Errorf("proposal %+v", data)
	}
	if len(data.Evidence.Files) != 1 || !slices.Equal(data.Evidence.Files[0].Binaries, []string{"/usr/bin/agent"}) {
		t.Errorf("evidence %+v", data.Evidence.Files)
	}
	if !slices.Equal(work.Filesystem.ReadWrite, []string{"/work"}) || !slices.Equal(work.SecurityNotes, []string{"'/work' is granted whole."}) {
		t.Errorf("proposal %+v", work)
	}
	if !slices.Equal(ssh.SecurityNotes, []string{"'/root/.ssh' holds keys or passwords."}) {
		t.Errorf("notes %q", ssh.SecurityNotes)
	}
	if g := work.FileGrants(); len(g) != 1 || g[0].Path != "/work" || !slices.Equal(g[0].Observed, []string{"/work/x"}) || g[0].Reason != ReasonEntry {
		t.Errorf("grants %+v", g)
	}

	learnFiles(t, store, "r2", access(OpRead, "/data/a"))
	if again := tree(t, store, "/data"); again.Digest != data.Digest || again.Evidence.Hits != 2 || len(again.Provenance.Runs) != 2 {
		t.Errorf("more of the same made it %+v", again)
	}
	r := approve(t, store, data.ID+"@"+data.Digest, work.ID)
	if !slices.Equal(r.Diff, []string{"+ read-only /data/a", "+ read-write /work"}) {
		t.Errorf("diff %q", r.Diff)
	}
	wantFiles(t, store, "/data/a", "/work")
	text, err := os.ReadFile(store.LearnedPath("agent"))
	if err != nil || !strings.Contains(string(text), "# filesystem_policy: 1 paths in /data: proposal "+data.ID+", learned in permissive mode, approved ") {
		t.Errorf("%s, %v", text, err)
	}
	if r := approve(t, store, data.ID); len(r.Approved) != 0 {
		t.Errorf("approved twice: %+v", r)
	}
	if _, err := Undo(store, "agent", data.ID, "me"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, store, "", "/work")
	if _, err := Undo(store, "agent", data.ID, "me"); err == nil {
		t.Error("undone twice")
	}
	if _, err := Undo(store, "agent", work.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if p, _ := LearnedPolicy(store, "agent"); p.Filesystem != nil {
		t.Errorf("left over: %+v", p.Filesystem)
	}
}

// A tree that grows after its approval needs a new look; approved again, its older paths that are folded
// by now are gone, and undo removes all.
func TestFileGrowth(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFiles(t, store, "r1", access(OpRead, "/work/a/x"))
	approve(t, store, tree(t, store, "/work").ID)
	learnFiles(t, store, "r2", access(OpCreate, "/work/a/y"))
	p := tree(t, store, "/work")
	if p.Status != StatusPending || !slices.Equal(p.Filesystem.ReadWrite, []string{"/work/a"}) || p.Filesystem.ReadOnly != nil {
		t.Errorf("grown %+v", p)
	}
	wantFiles(t, store, "/work/a/x", "")
	approve(t, store, p.ID)
	wantFiles(t, store, "", "/work/a")
	learnFiles(t, store, "r3", access(OpRead, "/work/b"))
	if _, err := Undo(store, "agent", p.ID, "me"); err != nil {
		t.Error(err)
	}
	wantFiles(t, store, "", "")
}

// A path that two proposals grant stays until both are undone, and one that was there before stays.
func TestSharedPaths(t *testing.T) {
	store := state.Open(t.TempDir())
	const own = "version: 1\nfilesystem_policy: {read_only: [/data/mine]}\n"
	if err := state.WriteFile(store.LearnedPath("agent"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, name := range []string{"/one", "/two"} {
		e := newEvidence("agent", target{tree: name})
		for _, path := range []string{"/data/mine", "/data/shared", "/data" + name} {
			e.addFile(permissiveRun("r1"), accessRequest{path: path}, access(OpRead, path))
		}
		p, ok := newProposal(e)
		if !ok {
			t.Fatal("no proposal")
		}
		if err := saveProposal(store, &p); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	approve(t, store, ids...)
	wantFiles(t, store, "/data/mine /data/one /data/shared /data/two", "")
	for i, want := range []string{"/data/mine /data/shared /data/two", "/data/mine"} {
		if _, err := Undo(store, "agent", ids[i], "me"); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, store, want, "")
	}
}

// An approval of an earlier version that was cut short can be repeated, and undone.
func TestInterruptedFileApproval(t *testing.T) {
	for _, repeat := range []bool{true, false} {
		store := state.Open(t.TempDir())
		learnFiles(t, store, "r1", access(OpRead, "/data/a"))
		p := tree(t, store, "/data")
		l, err := newLedger(store, "agent")
		if err != nil {
			t.Fatal(err)
		}
		rules, err := LearnedPolicy(store, "agent")
		if err != nil {
			t.Fatal(err)
		}
		l.add(rules, &p, p.granted().Filesystem)
		if err := saveProposal(store, &p); err != nil {
			t.Fatal(err)
		}
		saveLearned(t, store, rules)
		if repeat {
			approve(t, store, p.ID)
			wantFiles(t, store, "/data/a", "")
		}
		if _, err := Undo(store, "agent", p.ID, "me"); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, store, "", "")
	}
}

func TestFileProposalsAreChecked(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFiles(t, store, "r1", access(OpRead, "/data/a"))
	p := tree(t, store, "/data")
	original, err := os.ReadFile(store.ProposalPath("agent", p.ID))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"path":    {`"/data/a"`, `"/data"`},
		"mode":    {`"read_only"`, `"read_write"`},
		"workdir": {`"read_only"`, `"include_workdir": true, "read_only"`},
		"kind":    {`"kind": "filesystem"`, `"kind": "network"`},
	} {
		text := strings.Replace(string(original), change[0], change[1], 1)
		if text == string(original) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := state.WriteFile(store.ProposalPath("agent", p.ID), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Approve(store, "agent", []string{p.ID}, "me"); err == nil {
			t.Errorf("%s: approved", name)
		}
	}
}

// A file that an approved directory covers needs no look of its own.
func TestFilesSuperseded(t *testing.T) {
	store := state.Open(t.TempDir())
	learnFiles(t, store, "r1", access(OpRead, "/root/.ssh/id_rsa"), access(OpCreate, "/root/x"))
	home, ssh := tree(t, store, "/root"), tree(t, store, "/root/.ssh")
	if r := approve(t, store, home.ID); len(r.Superseded) != 1 || r.Superseded[0].ID != ssh.ID {
		t.Errorf("superseded %+v", r.Superseded)
	}
	if _, err := Undo(store, "agent", home.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if p := tree(t, store, "/root/.ssh"); p.Status != StatusPending {
		t.Errorf("after undo %q", p.Status)
	}
}
