// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

const agentPolicy = `version: 1
network_policies:
  pypi:
    endpoints:
      - host: pypi.org
        ports: [443]
    binaries:
      - path: /usr/bin/pip
`

// From denials to an approved rule, and back.
func TestReview(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("agent"), agentPolicy)
	wantContains(t, n.run("proposals", "agent"), "No proposals for policy agent", "openshell.ai/policy=agent", "openshell.ai/permissive=true")
	if out := n.run("proposals", "agent", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("no proposals as JSON: %q", out)
	}
	if out := n.run("approve", "agent", "--all"); out != "nothing is pending for policy agent\n" {
		t.Errorf("nothing to approve: %q", out)
	}

	n.learn("agent", "r1", request("api.github.com", "GET", "/repos/o/r"), request("api.github.com", "POST", "/graphql"), denied("db.example.com", 5432))
	n.learn("agent", "r2", request("api.github.com", "GET", "/repos/o/r"))
	github, db := n.proposals("agent")["api.github.com"], n.proposals("agent")["db.example.com"]
	out := n.run("proposals", "agent")
	wantContains(t, out, github.ID, db.ID, "api.github.com:443", "POST /graphql +1", "any (L4)", "permissive  2")

	out = n.run("show", strings.TrimPrefix(github.ID, "p-")[:6])
	wantContains(t, out, github.Rationale, github.Digest, "sandbox-r1", "alpine:3", "Evidence: 3 denials, TLS terminated",
		"2  GET /repos/o/r (answered 200)",
		"  network_policies:\n    "+github.RuleName+":",
		"  + /usr/bin/curl POST https://api.github.com:443/graphql\n",
		"openshell approve agent "+github.ID+"@"+github.Digest)

	out = n.run("approve", "agent", github.ID+"@"+github.Digest, "--by", "alice")
	wantContains(t, out, "approved "+github.ID+": /usr/bin/curl to api.github.com:443", "\n+ /usr/bin/curl POST https://api.github.com:443/graphql\n")
	wantLacks(t, out, "db.example.com", "\n- ", "reloaded")
	if p := n.proposals("agent")["api.github.com"]; p.Status != learn.StatusApproved || p.DecidedBy != "alice" {
		t.Errorf("after the approval: %s by %q", p.Status, p.DecidedBy)
	}
	wantContains(t, n.run("approve", "agent", github.ID), "approved already", "allows the same as before")
	wantContains(t, n.run("show", github.ID), "approved", "by alice", "openshell undo agent "+github.ID)
	wantContains(t, n.run("proposals", "agent", "--status", "pending"), db.ID)
	wantLacks(t, n.run("proposals", "agent", "--status", "pending"), github.ID)

	wantContains(t, n.run("reject", "agent", db.ID, "--reason", "no databases"), "rejected "+db.ID)
	wantContains(t, n.run("show", db.ID), "rejected", "no databases")
	if out := n.run("approve", "agent", "--all"); out != "nothing is pending for policy agent\n" {
		t.Errorf("a rejected proposal was approved with the others: %q", out)
	}
	wantContains(t, n.run("proposals", "agent", "--status", "pending"), "No pending proposals for policy agent; 2 with another status")

	out = n.run("policy", "show", "agent")
	wantContains(t, out, "# base: "+n.policyFile("agent"), "# approved: 1 rule", "pypi:", github.RuleName+":",
		"# proposal "+github.ID+", learned in permissive mode, approved 20")
	wantLacks(t, n.run("policy", "show", "agent", "--base"), github.RuleName)
	wantLacks(t, n.run("policy", "show", "agent", "--learned"), "pypi:")

	out = n.run("undo", "agent", github.ID)
	wantContains(t, out, "undone "+github.ID, "\n- /usr/bin/curl POST https://api.github.com:443/graphql\n")
	wantLacks(t, n.run("policy", "show", "agent"), github.RuleName)
	wantContains(t, n.run("undo", "agent", github.ID), "not approved: "+github.ID, "allows the same as before")
	if p := n.proposals("agent")["api.github.com"]; p.Status != learn.StatusPending {
		t.Errorf("after undoing it: %s", p.Status)
	}
}

func TestApprovalOfWhatWasLookedAtOnly(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", request("api.github.com", "GET", "/a"))
	seen := n.proposals("agent")["api.github.com"]
	n.learn("agent", "r2", request("api.github.com", "DELETE", "/a"))
	wantContains(t, n.fails("approve", "agent", seen.ID+"@"+seen.Digest), "its rule has changed")
	if p := n.proposals("agent")["api.github.com"]; p.Status != learn.StatusPending {
		t.Errorf("status %s", p.Status)
	}
}

// What grew after an approval shows as the difference to what was approved.
func TestShowOfGrownProposal(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", request("api.github.com", "GET", "/a"))
	n.run("approve", "agent", "--all")
	n.learn("agent", "r2", request("api.github.com", "DELETE", "/b"))
	p := n.proposals("agent")["api.github.com"]
	var shown struct {
		ID         string   `json:"id"`
		Status     string   `json:"status"`
		Difference []string `json:"difference"`
	}
	if err := json.Unmarshal([]byte(n.run("show", p.ID, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown.Difference) != 1 || !strings.HasPrefix(shown.Difference[0], "+ /usr/bin/curl DELETE ") || shown.Status != "pending" || shown.ID != p.ID {
		t.Errorf("shown: %+v", shown)
	}
}

func TestApproveRefusesBeforeItChanges(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", denied("a.example.com", 443), denied("b.example.com", 443))
	a := n.proposals("agent")["a.example.com"]
	wantContains(t, n.fails("approve", "agent", a.ID, "p-none"), `proposal "p-none": there is none`, "openshell proposals agent")
	wantContains(t, n.fails("approve", "agent", "p-"), "is the beginning of")
	n.write(n.policyFile("agent"), "version: 2\n")
	wantContains(t, n.fails("approve", "agent", a.ID), n.policyFile("agent"), "version")
	if _, err := os.Stat(n.store().LearnedPath("agent")); err == nil {
		t.Error("something was approved")
	}
}

func TestApproveReportsSandboxesItDidNotReach(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", denied("a.example.com", 443))
	n.sandbox("s1", "agent", nil) // alive, but nobody listens
	stdout, stderr, code := n.runWith("", "approve", "agent", "--all")
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	wantContains(t, stdout, "+ /usr/bin/curl a.example.com:443")
	wantContains(t, stderr, "not in force everywhere", "s1")
	wantContains(t, n.fails("approve", "agent", "--all"), "not in force everywhere", "s1") // it tries again
	if p := n.proposals("agent")["a.example.com"]; p.Status != learn.StatusApproved {
		t.Errorf("status %s", p.Status)
	}
}

// A tightened approval puts only what is in the file in force.
func TestApproveEdited(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", request("api.github.com", "GET", "/a"), request("api.github.com", "DELETE", "/b"))
	p := n.proposals("agent")["api.github.com"]
	text := n.run("show", p.ID, "--rule")
	file := filepath.Join(t.TempDir(), "edit.yaml")
	n.write(file, strings.Replace(text, "path: /b", "path: /**", 1))
	wantContains(t, n.fails("approve", "agent", p.ID, "--edit", file), "--edit "+file, "within what is proposed", "/**")
	n.write(file, strings.Replace(text, "      - allow:\n          method: DELETE\n          path: /b\n", "", 1))
	out := n.run("approve", "agent", p.ID+"@"+p.Digest, "--edit", file)
	wantContains(t, out, "approved in part "+p.ID, "+ /usr/bin/curl GET https://api.github.com:443/a\n")
	wantLacks(t, out, "DELETE")
	out = n.run("show", p.ID)
	wantContains(t, out, "In force, as it was tightened:", "DELETE")
	wantLacks(t, n.run("policy", "show", "agent"), "DELETE")
	wantContains(t, n.run("approve", "agent", p.ID), "approved already")
	wantLacks(t, n.run("policy", "show", "agent"), "DELETE")
	wantContains(t, n.fails("approve", "agent", "--all", "--edit", file), "--edit goes with one proposal")
	wantContains(t, n.fails("approve", "agent", p.ID, "--edit", file+".none"), file+".none")
}

func TestExport(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("agent"), agentPolicy)
	n.learn("agent", "r1", request("api.github.com", "GET", "/a"), denied("db.example.com", 5432))
	n.run("approve", "agent", "--all", "--by", "alice\nnetwork_policies: {}")
	first := n.run("policy", "export", "agent")
	if again := n.run("policy", "export", "agent"); again != first {
		t.Errorf("exports differ:\n%s\n%s", first, again)
	}
	p, _, err := policy.Parse([]byte(first))
	if err != nil {
		t.Fatalf("the export does not load: %v\n%s", err, first)
	}
	for key, r := range p.Network {
		if r.Learned != (key != "pypi") {
			t.Errorf("%s: learned is %v", key, r.Learned)
		}
	}
	wantContains(t, first, "# proposal p-", `by alice\x0anetwork_policies: {}`)
	file := filepath.Join(t.TempDir(), "agent.yaml")
	n.run("policy", "export", "agent", "--output", file)
	if n.read(file) != first {
		t.Error("the file differs from standard output")
	}

	// On another node.
	other := newNode(t)
	other.write(other.policyFile("agent"), first)
	if again := other.run("policy", "export", "agent"); again != first {
		t.Errorf("the export of the export differs:\n%s\n%s", first, again)
	}
	// On the same one, where the same rules are still approved.
	n.write(n.policyFile("agent"), first)
	if again := n.run("policy", "export", "agent"); again != first {
		t.Errorf("the export of the export beside its origin differs:\n%s\n%s", first, again)
	}
}

func TestAnnotateChangesCommentsOnly(t *testing.T) {
	p, _, err := policy.Parse([]byte(agentPolicy))
	if err != nil {
		t.Fatal(err)
	}
	p.Network["pypi"].Learned = true
	p.Network["10"] = &policy.Rule{Endpoints: []policy.Endpoint{{Host: "*.example.com", Ports: []uint16{1, 2}, Protocol: "rest", Enforcement: "enforce",
		Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "*", Path: "/**", Query: map[string]policy.Matcher{"no": {Any: []string{"yes", "#"}}}}}}}}}
	data, err := policy.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	same, err := annotate(data, func(string) []string { return nil })
	if err != nil || string(same) != string(data) {
		t.Errorf("%v:\n%s\nwas\n%s", err, same, data)
	}
	annotated, err := annotate(data, func(key string) []string { return []string{"# about " + key}[:len(key)/4] })
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Replace(string(annotated), "  # about pypi\n", "", 1); got != string(data) || got == string(annotated) {
		t.Errorf("got\n%s\nwas\n%s", annotated, data)
	}
}

func TestExportRefuses(t *testing.T) {
	n := newNode(t)
	wantContains(t, n.fails("policy", "export", "nobody"), "nobody", n.policyFile("nobody"))
	n.write(n.policyFile("dns"), "version: 1\nnetwork_policies:\n  ntp:\n    endpoints:\n      - {host: ntp.example.com, port: 123, protocol: udp}\n    binaries: [{path: /bin/ntpd}]\n")
	n.run("policy", "export", "dns")
	wantContains(t, n.fails("policy", "export", "dns", "--strict-openshell"), "network_policies.ntp.endpoints[0].protocol", "udp")
	wantContains(t, n.fails("policy", "export", "dns", "--output", n.policiesDir), "not a regular file")
	n.learn("fresh", "r1", denied("a.example.com", 443))
	wantContains(t, n.run("policy", "show", "fresh"), "# base: the built-in default", "include_workdir: true")
}

// A slip of the pen is no policy with nothing to approve, but one whose runs were denied nothing is.
func TestApproveAllOfNothing(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1")
	if out := n.run("approve", "agent", "--all"); out != "nothing is pending for policy agent\n" {
		t.Errorf("%q", out)
	}
	wantContains(t, n.fails("approve", "agnet", "--all"), "policy agnet: there is none")
}

// Of commands at the same time each tells what it did itself, and no more.
func TestApprovalsAtOnce(t *testing.T) {
	n := newNode(t)
	var denials []learn.Denial
	for i := range 20 {
		denials = append(denials, denied(fmt.Sprintf("h%d.example.com", i), 443))
	}
	n.learn("agent", "r1", denials...)
	out := make(chan string)
	for range 4 {
		root, stdout, stderr := n.command("", "approve", "agent", "--all")
		go func() {
			if err := root.Execute(); err != nil {
				stdout.WriteString(err.Error() + stderr.String())
			}
			out <- stdout.String()
		}()
	}
	for range 4 {
		text := <-out
		if approved, added := strings.Count(text, "approved p-"), strings.Count(text, "\n+ "); approved != added || approved != 0 && approved != 20 {
			t.Errorf("%d approved, %d added: %s", approved, added, text)
		}
	}
}

// Rules of programs that treat a host differently are fine here, but not in OpenShell.
func TestStrictExportOfRulesThatDisagree(t *testing.T) {
	n := newNode(t)
	n.learn("agent", "r1", request("api.example.com", "GET", "/a"), with443("api.example.com", "/usr/bin/git"))
	n.run("approve", "agent", "--all")
	wantContains(t, n.run("policy", "export", "agent"), "/usr/bin/git")
	wantContains(t, n.fails("policy", "export", "agent", "--strict-openshell"), "network_policies.", "OpenShell itself would refuse")
}

// with443 is a connection of a program whose content was not trusted to the sandbox.
func with443(host, binary string) learn.Denial {
	d := denied(host, 443)
	d.Binary, d.TLSSkip = binary, true
	return d
}
