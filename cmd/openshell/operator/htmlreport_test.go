// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/sandbox"
)

func TestHTMLReport(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("agent"), agentPolicy)
	n.learn("agent", "r1", request("api.github.com", "GET", "/repos/o/r"), denied("db.example.com", 5432))
	n.run("approve", "agent", n.proposals("agent")["api.github.com"].ID, "--by", "alice")
	n.sandbox("s1", "agent", func(i *sandbox.Info) { i.Mode, i.Deadline = confine.ModePermissive, time.Now().Add(time.Hour) })
	file := filepath.Join(t.TempDir(), "agent.html")
	if out := n.run("report", "agent", "--html", file); out != "" {
		t.Errorf("%q", out)
	}
	page := n.read(file)
	wantContains(t, page, "<!DOCTYPE html>", "Policy agent", "pypi.org:443", "GET /repos/o/r", "db.example.com:5432", "by alice",
		"Sandbox s1 runs permissively", n.policyFile("agent"))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	wantContains(t, n.run("report", "agent", "--html", "-"), "</html>")
	wantContains(t, n.fails("report", "agent"), "name the file to write", "--html FILE")
	wantContains(t, n.fails("report", "nobody", "--html", file), "nobody")
	wantContains(t, n.fails("report", "agent", "--html", n.policiesDir), "--html", "not a regular file")
}

func TestReviewNeedsATerminal(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", denied("a.example.com", 443))
	wantContains(t, n.fails("review", "agent"), "terminal", "openshell proposals agent")
	wantContains(t, n.fails("review", "nobody"), "nobody")
}
