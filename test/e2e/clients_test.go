// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// shell runs a script of the host's own programs in a sandbox, in a directory
// that stays.
func shell(w *node.World, mode, policy, script string) node.Outcome {
	w.T.Helper()
	if err := os.MkdirAll(w.TryDir(), 0o755); err != nil {
		w.T.Fatal(err)
	}
	args := []string{"--policy", policy, "--bind", "--", "/bin/bash", "-ec", script}
	if mode != "" {
		args = append([]string{mode}, args...)
	}
	return w.Try(args...)
}

// wantCommand fails where the host lacks a client that hack/deps installs.
func wantCommand(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatal(err)
	}
}

func TestCurlInEveryHTTPVersion(t *testing.T) {
	t.Parallel()
	wantCommand(t, "curl")
	w := node.New(t)
	w.Policy("curl", `version: 1
network_policies:
  read:
    binaries: [{path: /usr/bin/curl}]
    endpoints:
      - {host: web.example, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /in/**}}]}
      - {host: api.weather.example, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /in/**}}]}
`)
	for _, tt := range []struct{ flag, base, proto string }{
		{"--http1.0", "http://" + fakenet.WebHost, "HTTP/1.1"}, // the proxy's own version on the way out
		{"--http1.1", "http://" + fakenet.WebHost, "HTTP/1.1"},
		{"--http2", "http://" + fakenet.WebHost, "HTTP/1.1"}, // an upgrade that is not taken up
		{"--http2-prior-knowledge", "http://" + fakenet.WebHost, "HTTP/2.0"},
		{"--http1.1", "https://" + fakenet.WeatherHost, "HTTP/1.1"},
		{"--http2", "https://" + fakenet.WeatherHost, "HTTP/2.0"},
	} {
		w.Net.Reset()
		script := "for path in /in/a /out/b; do curl -sS " + tt.flag + " -o /dev/null -w '%{http_code}\\n' " + tt.base + "$path; done"
		o := shell(w, "", "curl", script)
		if o.Status != 0 || o.Stdout != "200\n403\n" {
			t.Errorf("%s %s: %s", tt.flag, tt.base, o)
		}
		requests := w.Net.Requests()
		if len(requests) != 1 || requests[0].Target != "/in/a" || requests[0].Proto != tt.proto {
			t.Errorf("%s %s: the origin saw %+v", tt.flag, tt.base, requests)
		}
	}
}

func TestGitCloneAndPush(t *testing.T) {
	t.Parallel()
	wantCommand(t, "git")
	w := node.New(t)
	w.Policy("git", noNetwork)
	const work = `rm -rf project; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git -c http.version=$version clone -q https://` + fakenet.GitHost + fakenet.GitRepository + `
cd project; git config user.name openshell; git config user.email openshell@git.example
date +%N >> README.md; git commit -qam change
git -c http.version=$version push -q
`
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		if o := shell(w, "--permissive", "git", "version="+version+"\n"+work); o.Status != 0 {
			t.Fatalf("permissive, %s: %s", version, o)
		}
	}
	w.Operate("approve", "git", "--all")
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		if o := shell(w, "", "git", "version="+version+"\n"+work); o.Status != 0 {
			t.Fatalf("enforcing, %s: %s", version, o)
		}
	}

	// Reading is not writing.
	w.Policy("reader", `version: 1
network_policies:
  clone:
    endpoints:
      - {host: git.example, port: 443, protocol: rest, enforcement: enforce,
         rules: [{allow: {method: GET, path: "/*/info/refs", query: {service: git-upload-pack}}}, {allow: {method: POST, path: "/*/git-upload-pack"}}]}
`)
	w.Net.Reset()
	o := shell(w, "", "reader", "version=HTTP/2\n"+work)
	if o.Status == 0 || !strings.Contains(o.Stderr, "403") {
		t.Errorf("a push by a reader: %s", o)
	}
	if seen := w.Net.Saw(fakenet.GitHost); len(seen) == 0 || slices.ContainsFunc(seen, func(s string) bool { return strings.Contains(s, "receive-pack") }) {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestPolicyLocal(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("agent", noNetwork)
	c := w.Container(node.Policy("agent")).Start()
	target := "https://" + fakenet.WeatherHost + "/forecast"
	r := c.Client("get", target)
	refused(t, r, http.StatusForbidden)
	if !strings.Contains(r.Body, `"next_steps"`) || !strings.Contains(r.Body, "http://policy.local/v1/proposals") {
		t.Errorf("no next steps: %s", r.Body)
	}
	if r := c.Client("get", "http://policy.local/v1/policy/current"); r.Status != http.StatusOK || !strings.Contains(r.Body, "policy_yaml") {
		t.Errorf("current policy: %d %s", r.Status, r.Body)
	}
	if r := c.Client("get", "http://policy.local/v1/denials?last=5"); r.Status != http.StatusOK || !strings.Contains(r.Body, fakenet.WeatherHost) {
		t.Errorf("denials: %d %s", r.Status, r.Body)
	}
	const wish = `{"intent_summary":"read the forecast","operations":[{"addRule":{"ruleName":"weather","rule":{"name":"weather",
"endpoints":[{"host":"api.weather.example","port":443,"protocol":"rest","enforcement":"enforce","rules":[{"allow":{"method":"GET","path":"/forecast"}}]}],
"binaries":[{"path":"` + node.ClientPath + `"}]}}}]}`
	r = c.Client(post("http://policy.local/v1/proposals", wish)...)
	if r.Status != http.StatusAccepted {
		t.Fatalf("proposal: %d %s", r.Status, r.Body)
	}
	refused(t, c.Client("get", target), http.StatusForbidden) // asking is not getting
	i := slices.IndexFunc(w.Proposals("agent"), func(p learn.Proposal) bool { return p.Provenance.Mode == "agent" })
	if i < 0 {
		t.Fatalf("no proposal of the agent's: %+v", w.Proposals("agent"))
	}
	id := w.Proposals("agent")[i].ID
	w.Operate("approve", "agent", id)
	if r := c.Client("get", "http://policy.local/v1/proposals/"+id+"/wait?timeout=5"); r.Status != http.StatusOK || !strings.Contains(r.Body, `"approved"`) {
		t.Errorf("wait: %d %s", r.Status, r.Body)
	}
	node.Worked(t, c.Client("get", target))
}

// A policy file that changes rules running sandboxes; one that is not valid
// leaves the last that was.
func TestPolicyFileIsReloaded(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("live", noNetwork)
	c := w.Container(node.Policy("live")).Start()
	get := []string{"get", "https://" + fakenet.WeatherHost + "/x"}
	refused(t, c.Client(get...), http.StatusForbidden)
	w.Policy("live", weatherOnly)
	node.Eventually(t, node.Patience, "the file's policy", func() bool { return c.Client(get...).Status == http.StatusOK })
	w.Policy("live", "version: 1\nnetwork_policies: {broken: {endpoints: [{host: x}]}}\n")
	node.Eventually(t, node.Patience, "a line about the invalid file", func() bool {
		return strings.Contains(w.AuditLog(c), "not reloaded")
	})
	node.Worked(t, c.Client(get...))
	w.Policy("live", noNetwork)
	node.Eventually(t, node.Patience, "the file's policy again", func() bool { return c.Client(get...).Status == http.StatusForbidden })
}
