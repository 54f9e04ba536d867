// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

func (n *testNode) learnFiles(policyName, run string, accesses ...learn.FileAccess) {
	n.t.Helper()
	l := learn.Start(n.store(), learn.Run{ID: run, Sandbox: "sandbox-" + run, Policy: policyName, Mode: learn.ModePermissive, Started: start}, learn.Options{})
	for _, a := range accesses {
		l.ObserveFile(a)
	}
	if err := l.Close(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) only(policyName string) learn.Proposal {
	n.t.Helper()
	list, err := learn.List(n.store(), policyName)
	if err != nil || len(list) != 1 {
		n.t.Fatalf("%d proposals, %v", len(list), err)
	}
	return list[0]
}

func TestFilesAreReviewed(t *testing.T) {
	n := newNode(t)
	file := func(op learn.FileOp, path, binary string) learn.FileAccess {
		return learn.FileAccess{Time: start, Path: path, Op: op, Binary: binary, Permissive: true}
	}
	n.learnFiles("agent", "r1", file(learn.OpRead, "/work/in", "/usr/bin/tar"), file(learn.OpCreate, "/work/out/x", "/usr/bin/gzip"))
	p := n.only("agent")
	wantContains(t, n.run("proposals"), p.ID, "/usr/bin/tar +1", "/work", "read 1, write 1")
	wantContains(t, n.run("show", p.ID), "Tree        /work", "Binary      /usr/bin/tar, /usr/bin/gzip", "filesystem_policy:", "- /work/out",
		"  read  /work/in\n  write /work/out\n        to make, remove or rename a file takes write access to its directory: /work/out/x\n",
		"+ read-only /work/in", "+ read-write /work/out", p.ID+"@"+p.Digest)
	wantContains(t, n.run("approve", "agent", p.ID+"@"+p.Digest), "approved "+p.ID+": Allow access to 2 paths in /work.", "+ read-only /work/in", "+ read-write /work/out")
	wantContains(t, n.run("policy", "export", "agent"), "- /work/out")
	wantContains(t, n.run("undo", "agent", p.ID), "undone "+p.ID, "- read-write /work/out")
	wantContains(t, n.run("undo", "agent", p.ID), "not approved: "+p.ID)
}

func TestWhatWorkloadsAskForIsReviewed(t *testing.T) {
	n := newNode(t)
	rule := &policy.Rule{
		Endpoints: []policy.Endpoint{
			{Host: "api.example.com", Port: 443, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: "/a"}}}},
			{Host: "git.example.com", Ports: []uint16{22, 9418}},
		},
		Binaries: []policy.Binary{{Path: "/usr/bin/git"}, {Path: "/usr/bin/ssh"}},
	}
	submitted, err := learn.Submit(n.store(), learn.Submission{Policy: "agent", Run: learn.Run{ID: "r1"}, Binary: "/usr/bin/agent",
		Intent: "fetch the sources", Operations: []learn.Operation{{RuleName: "sources", Rule: rule}}})
	if err != nil || !submitted[0].Accepted {
		t.Fatalf("%+v, %v", submitted, err)
	}
	id := submitted[0].ID
	wantContains(t, n.run("proposals"), id, "/usr/bin/git +1", "api.example.com:443 +2", "agent")
	wantContains(t, n.run("show", id), "Asked by    /usr/bin/agent", "fetch the sources", "api.example.com:443, git.example.com:22, git.example.com:9418",
		"! The rule is for '/usr/bin/git', and '/usr/bin/agent' asks for it.")
	wantContains(t, n.run("approve", "agent", id), "approved "+id, "+ /usr/bin/ssh git.example.com:9418 (tcp)")
	wantContains(t, n.run("undo", "agent", id), "undone "+id)
}

func TestApproveAllLeavesOutWhatWasCutShort(t *testing.T) {
	n := newNode(t)
	var accesses []learn.FileAccess
	for i := range 1000 {
		accesses = append(accesses, learn.FileAccess{Time: start, Path: fmt.Sprintf("/etc/f%d", i), Op: learn.OpWrite, Binary: "/bin/x", Permissive: true})
	}
	n.learnFiles("agent", "r1", accesses...)
	cut := n.only("agent")
	if !cut.CutShort() {
		t.Fatalf("notes %q", cut.SecurityNotes)
	}
	wantContains(t, n.run("proposals", "agent"), "pending, truncated")
	wantContains(t, n.fails("approve", "agent", "--all"), cut.ID, "--include-truncated")
	n.learn("agent", "r2", denied("a.example.com", 443))
	wantContains(t, n.fails("approve", "agent", "--all"), cut.ID)
	list, err := learn.List(n.store(), "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if want := map[bool]string{true: learn.StatusPending, false: learn.StatusApproved}[p.ID == cut.ID]; p.Status != want {
			t.Errorf("%s is %s", p.ID, p.Status)
		}
	}
	wantContains(t, n.fails("approve", "agent", cut.ID, "--include-truncated"), "--all")
	wantContains(t, n.run("approve", "agent", "--all", "--include-truncated"), "approved "+cut.ID)
}

func TestNotesAreShown(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", denied("a.example.com", 443), denied("169.254.169.254", 80), denied("*.example.com", 443))
	n.learn("agent", "r2")
	wantContains(t, n.run("proposals", "agent"), "1 of 2", "Not proposed, in 2 runs:", "     1  to addresses that are never reachable",
		"        /usr/bin/curl to 169.254.169.254:80: is never reachable", "     1  that no rule can name literally")
	wantContains(t, n.run("proposals"), "Not proposed for policy agent, in 2 runs:")
	wantContains(t, n.run("show", n.proposals("agent")["a.example.com"].ID), "Seen in     1 of 2 runs")
}

func TestSiblingsAreSuggested(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", denied("cdn1.img.example", 443), denied("cdn2.img.example", 443), denied("cdn3.img.example", 443))
	wantContains(t, n.run("show", n.proposals("agent")["cdn2.img.example"].ID), "Suggestion: 3 hosts differ in one label only", "*.img.example")
}

// What would make the effective policy one that no sandbox can start with is not approved.
func TestApprovalKeepsThePolicyValid(t *testing.T) {
	n := newNode(t)
	for tree := range 6 {
		var accesses []learn.FileAccess
		for i := range 200 {
			accesses = append(accesses, learn.FileAccess{Time: start, Path: fmt.Sprintf("/tree%d/f%d", tree, i), Op: learn.OpRead, Binary: "/bin/x", Permissive: true})
		}
		n.learnFiles("agent", fmt.Sprintf("r%d", tree), accesses...)
	}
	wantContains(t, n.fails("approve", "agent", "--all"), "nothing is approved", "too many filesystem paths (1200 > 1024)")
	list, err := learn.List(n.store(), "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.Status != learn.StatusPending {
			t.Errorf("%s is %s", p.ID, p.Status)
		}
	}
	n.run("approve", "agent", list[0].ID)
}
