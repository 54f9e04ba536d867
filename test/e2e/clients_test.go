package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/test/fakenet"
)

// shell runs a script of the host's own programs in a sandbox, in a directory
// that stays.
func (w *world) shell(mode, policy, script string) outcome {
	w.t.Helper()
	if err := os.MkdirAll(w.tryDir(), 0o755); err != nil {
		w.t.Fatal(err)
	}
	args := []string{"--policy", policy, "--bind", "--", "/bin/bash", "-ec", script}
	if mode != "" {
		args = append([]string{mode}, args...)
	}
	return w.try(args...)
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
	w := newWorld(t)
	w.policy("curl", `version: 1
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
		w.net.Reset()
		script := "for path in /in/a /out/b; do curl -sS " + tt.flag + " -o /dev/null -w '%{http_code}\\n' " + tt.base + "$path; done"
		o := w.shell("", "curl", script)
		if o.status != 0 || o.stdout != "200\n403\n" {
			t.Errorf("%s %s: %s", tt.flag, tt.base, o)
		}
		requests := w.net.Requests()
		if len(requests) != 1 || requests[0].Target != "/in/a" || requests[0].Proto != tt.proto {
			t.Errorf("%s %s: the origin saw %+v", tt.flag, tt.base, requests)
		}
	}
}

func TestGitCloneAndPush(t *testing.T) {
	t.Parallel()
	wantCommand(t, "git")
	w := newWorld(t)
	w.policy("git", noNetwork)
	const work = `rm -rf project; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git -c http.version=$version clone -q https://` + fakenet.GitHost + fakenet.GitRepository + `
cd project; git config user.name openshell; git config user.email openshell@git.example
date +%N >> README.md; git commit -qam change
git -c http.version=$version push -q
`
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		if o := w.shell("--permissive", "git", "version="+version+"\n"+work); o.status != 0 {
			t.Fatalf("permissive, %s: %s", version, o)
		}
	}
	w.operate("approve", "git", "--all")
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		if o := w.shell("", "git", "version="+version+"\n"+work); o.status != 0 {
			t.Fatalf("enforcing, %s: %s", version, o)
		}
	}

	// Reading is not writing.
	w.policy("reader", `version: 1
network_policies:
  clone:
    endpoints:
      - {host: git.example, port: 443, protocol: rest, enforcement: enforce,
         rules: [{allow: {method: GET, path: "/*/info/refs", query: {service: git-upload-pack}}}, {allow: {method: POST, path: "/*/git-upload-pack"}}]}
`)
	w.net.Reset()
	o := w.shell("", "reader", "version=HTTP/2\n"+work)
	if o.status == 0 || !strings.Contains(o.stderr, "403") {
		t.Errorf("a push by a reader: %s", o)
	}
	if seen := w.net.Saw(fakenet.GitHost); len(seen) == 0 || slices.ContainsFunc(seen, func(s string) bool { return strings.Contains(s, "receive-pack") }) {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestPolicyLocal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy("agent", noNetwork)
	c := w.container(policy("agent")).start()
	target := "https://" + fakenet.WeatherHost + "/forecast"
	r := c.client("get", target)
	refused(t, r, http.StatusForbidden)
	if !strings.Contains(r.Body, `"next_steps"`) || !strings.Contains(r.Body, "http://policy.local/v1/proposals") {
		t.Errorf("no next steps: %s", r.Body)
	}
	if r := c.client("get", "http://policy.local/v1/policy/current"); r.Status != http.StatusOK || !strings.Contains(r.Body, "policy_yaml") {
		t.Errorf("current policy: %d %s", r.Status, r.Body)
	}
	if r := c.client("get", "http://policy.local/v1/denials?last=5"); r.Status != http.StatusOK || !strings.Contains(r.Body, fakenet.WeatherHost) {
		t.Errorf("denials: %d %s", r.Status, r.Body)
	}
	const wish = `{"intent_summary":"read the forecast","operations":[{"addRule":{"ruleName":"weather","rule":{"name":"weather",
"endpoints":[{"host":"api.weather.example","port":443,"protocol":"rest","enforcement":"enforce","rules":[{"allow":{"method":"GET","path":"/forecast"}}]}],
"binaries":[{"path":"` + clientPath + `"}]}}}]}`
	r = c.client(post("http://policy.local/v1/proposals", wish)...)
	if r.Status != http.StatusAccepted {
		t.Fatalf("proposal: %d %s", r.Status, r.Body)
	}
	refused(t, c.client("get", target), http.StatusForbidden) // asking is not getting
	i := slices.IndexFunc(w.proposals("agent"), func(p learn.Proposal) bool { return p.Provenance.Mode == "agent" })
	if i < 0 {
		t.Fatalf("no proposal of the agent's: %+v", w.proposals("agent"))
	}
	id := w.proposals("agent")[i].ID
	w.operate("approve", "agent", id)
	if r := c.client("get", "http://policy.local/v1/proposals/"+id+"/wait?timeout=5"); r.Status != http.StatusOK || !strings.Contains(r.Body, `"approved"`) {
		t.Errorf("wait: %d %s", r.Status, r.Body)
	}
	worked(t, c.client("get", target))
}

// A policy file that changes rules running sandboxes; one that is not valid
// leaves the last that was.
func TestPolicyFileIsReloaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy("live", noNetwork)
	c := w.container(policy("live")).start()
	get := []string{"get", "https://" + fakenet.WeatherHost + "/x"}
	refused(t, c.client(get...), http.StatusForbidden)
	w.policy("live", weatherOnly)
	eventually(t, patience, "the file's policy", func() bool { return c.client(get...).Status == http.StatusOK })
	w.policy("live", "version: 1\nnetwork_policies: {broken: {endpoints: [{host: x}]}}\n")
	eventually(t, patience, "a line about the invalid file", func() bool {
		return strings.Contains(w.auditLog(c), "not reloaded")
	})
	worked(t, c.client(get...))
	w.policy("live", noNetwork)
	eventually(t, patience, "the file's policy again", func() bool { return c.client(get...).Status == http.StatusForbidden })
}
