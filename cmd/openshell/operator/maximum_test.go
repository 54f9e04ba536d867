// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox"
)

func (n *testNode) maximum(text string) string {
	path := filepath.Join(filepath.Dir(n.config), "maximum.yaml")
	n.write(path, text)
	return path
}

const githubOnly = `version: 1
network_policies:
  pypi: {endpoints: [{host: pypi.org, port: 443}], binaries: [{path: /usr/bin/pip}]}
  github: {endpoints: [{host: '*.github.com', port: 443, protocol: rest, enforcement: enforce, access: read-only}], binaries: [{path: /usr/bin/**}]}
`

// What exceeds the node's maximum is not approved, nor is anything that is named with it; --all leaves it out.
func TestApproveStaysWithinTheMaximum(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("agent"), agentPolicy)
	n.write(n.config, n.read(n.config)+"maximum_policy: "+n.maximum(githubOnly)+"\n")
	n.learn("agent", "r1", request("api.github.com", "GET", "/repos/o/r"), denied("db.example.com", 5432))
	github, db := n.proposals("agent")["api.github.com"], n.proposals("agent")["db.example.com"]
	for _, args := range [][]string{{db.ID}, {github.ID, db.ID}} {
		message := n.fails(append([]string{"approve", "agent"}, args...)...)
		wantContains(t, message, "proposal "+db.ID+" is not approved", "exceeds the node's maximum policy", db.RuleName)
		wantLacks(t, message, github.ID)
	}
	for _, p := range n.proposals("agent") {
		if p.Status != learn.StatusPending {
			t.Errorf("%s is %s", p.ID, p.Status)
		}
	}
	stdout, stderr, code := n.runWith("", "approve", "agent", "--all")
	wantContains(t, stdout, "approved "+github.ID, "+ ")
	wantLacks(t, stdout, db.ID, "approved already")
	wantContains(t, stderr, "proposal "+db.ID+" is not approved", "exceeds the node's maximum policy")
	if p := n.proposals("agent"); code != 1 || p["api.github.com"].Status != learn.StatusApproved || p["db.example.com"].Status != learn.StatusPending {
		t.Errorf("exit %d, %s", code, stderr)
	}
	stdout, _, code = n.runWith("", "approve", "agent", "--all") // nothing else is left
	if code != 1 || stdout != "" {
		t.Errorf("exit %d, %q", code, stdout)
	}

	// Narrowed afterwards, it names what has to be taken back, which can be.
	n.maximum(agentPolicy)
	wantContains(t, n.fails("approve", "agent", github.ID), github.ID, "exceeds")
	wantContains(t, n.run("undo", "agent", github.ID), "undone "+github.ID)
}

func TestCheckCeilings(t *testing.T) {
	n := newNode(t)
	c, err := config.Load(n.config)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want, detail string) {
		t.Helper()
		if f := checkCeilings(c); f.Status != want || !strings.Contains(f.Detail, detail) {
			t.Errorf("%+v, want %s with %q", f, want, detail)
		}
	}
	check(statusOK, "none")
	c.MaximumPolicy = filepath.Join(filepath.Dir(n.config), "maximum.yaml")
	check(statusFail, "does not exist")
	n.maximum("version: 1\nx: 1\n")
	check(statusFail, "x")
	n.maximum(agentPolicy)
	check(statusOK, "maximum.yaml")
	n.write(n.policyFile("house"), githubOnly)
	c.DefaultPolicy = "house"
	check(statusWarn, "github")
	c.Permissive.Never = []string{"https://x"}
	check(statusFail, "https://x")
}

func TestCheckSandboxes(t *testing.T) {
	n := newNode(t)
	c, err := config.Load(n.config)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	check := func(want string, details ...string) {
		t.Helper()
		f := checkSandboxes(c, now)
		if f.Status != want {
			t.Errorf("%+v, want %s", f, want)
		}
		wantContains(t, f.Detail, details...)
	}
	check(statusOK, "0 sandboxes")
	n.sandbox("s1", "agent", nil)
	check(statusOK, "1 sandbox")
	n.sandbox("s2", "agent", func(i *sandbox.Info) { i.PolicyError = "line 3: nonsense" })
	check(statusWarn, "s2: keeps the last valid policy: line 3: nonsense")
	n.sandbox("s3", "agent", func(i *sandbox.Info) {
		i.Mode, i.Deadline = confine.ModePermissive, now.Add(34*time.Minute+time.Second)
	})
	n.sandbox("s4", "agent", func(i *sandbox.Info) { i.Mode = confine.ModePermissive; i.Supervisor.StartTime++ })
	check(statusWarn, "s2: keeps", "s3: permissive (34m left)", "s4: its supervisor is dead")

	_, stderr, code := n.runWith("", "ls")
	if code != 0 || !strings.Contains(stderr, "warning: sandbox s2 keeps the last valid policy: line 3: nonsense\n") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// policy eval and policy explain answer as the sandbox does, which the node's configuration binds too.
func TestEvalAndExplainHeedTheNode(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("agent"), "version: 1\nnetwork_policies:\n  all: {endpoints: [{host: api.github.com, port: 443}, {host: other.example.com, port: 443}]}\n")
	n.write(n.config, n.read(n.config)+"maximum_policy: "+n.maximum(githubOnly)+"\npermissive: {never: ['*.corp.example', pypi.org]}\n")
	ask := func(host string, args ...string) string {
		line := `{"binary":"/usr/bin/pip","host":"` + host + `","port":443,"http":{"method":"POST","target":"/"}}`
		stdout, stderr, code := n.runWith(line, append([]string{"policy", "eval", "--policy", n.policyFile("agent")}, args...)...)
		if code != 0 || stderr != "" {
			t.Errorf("exit %d, %s", code, stderr)
		}
		return stdout
	}
	wantContains(t, ask("other.example.com"), `"deny","layer":"l4"`, "exceeds the node's maximum policy: endpoint other.example.com:443")
	wantContains(t, ask("api.github.com", "--permissive"), `"deny","layer":"l7"`, "exceeds the node's maximum policy: POST / not permitted")
	wantContains(t, ask("pypi.org", "--permissive"), `"deny","layer":"l4"`, "permissive.never")
	out := n.run("policy", "explain", "agent", "--binary", "/usr/bin/curl", "--url", "https://other.example.com/")
	wantContains(t, out, "deny: /usr/bin/curl GET https://other.example.com:443/", "connection  deny   exceeds the node's maximum policy", "(all)")
	wantLacks(t, out, "to allow it, add")
	out = n.run("policy", "explain", "agent", "--permissive", "--binary", "/usr/bin/pip", "--url", "tcp://pypi.org:443")
	wantContains(t, out, "deny: ", "permissive.never", "to allow it, add to network_policies:\n  pypi_org_443_pip:")
	n.maximum("nonsense: 1\n")
	wantContains(t, n.fails("policy", "explain", "agent", "--binary", "/a", "--url", "tcp://pypi.org:443"), "maximum_policy")
}
