package operator

import (
	"testing"

	"openshell.ai/openshell/learn"
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
