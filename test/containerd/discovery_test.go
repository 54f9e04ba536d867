// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

const (
	wanted   = "https://" + fakenet.WeatherHost + "/forecast"
	unlisted = "https://" + fakenet.GitHubHost + "/repos"
)

// Learn, review, approve, enforce.
func testDiscovery(t *testing.T, n *node) {
	policy := n.name("agent")
	id := n.detached(t, runFlags("policy="+policy, "permissive=true"), "/bin/sleep", "1000")
	worked(t, n.client(t, id, "get", wanted))
	n.awaitProposal(t, policy, fakenet.WeatherHost) // while it runs
	if text := n.openshell(t, "proposals", policy); !strings.Contains(text, fakenet.WeatherHost) {
		t.Errorf("proposals: %s", text)
	}
	n.openshell(t, "approve", policy, "--all")
	n.remove(t, id)

	o := n.foreground(t, runFlags("policy="+policy), clientPath, "get", wanted)
	worked(t, results(t, o.Stdout)[0])
	n.net.Reset()
	o = n.foreground(t, runFlags("policy="+policy), clientPath, "get", unlisted)
	refused(t, results(t, o.Stdout)[0], fakenet.GitHubHost)
	if seen := n.net.Saw(fakenet.GitHubHost); len(seen) > 0 {
		t.Errorf("an unlisted host was reached: %q", seen)
	}
}

// testConfinement compares the first process with one that is executed later.
func testConfinement(t *testing.T, n *node) {
	policy := n.name("confined")
	n.policy(t, policy, `version: 1
network_policies:
  weather:
    endpoints: [{host: api.weather.example, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/client}]
`)
	probe := []string{clientPath, "seq", "status", ",", "env", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", ",",
		"write", "/outside/file", ",", "write", "/tmp/file", ",", "links", ",", "get", wanted, ",", "get", unlisted}
	flags := append([]string{"--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_NET_ADMIN"}, runFlags("policy="+policy)...)
	first := results(t, n.foreground(t, flags, probe...).Stdout)
	id := n.detached(t, flags, "/bin/sleep", "1000")
	later := results(t, n.exec(t, id, probe...).Stdout)

	for which, list := range map[string][]result{"first process": first, "exec": later} {
		if len(list) != 8 {
			t.Fatalf("%s: %+v", which, list)
		}
		status, env, outside, inside, links, allowed, denied := list[0], list[1], list[2], list[3], list[4], list[5], list[6]
		if status.Fields["Seccomp"] != "2" || status.Fields["NoNewPrivs"] != "1" {
			t.Errorf("%s: status %v", which, status.Fields)
		}
		if env.Fields["SSL_CERT_FILE"] != "/etc/openshell-tls/ca-bundle.pem" {
			t.Errorf("%s: environment %v", which, env.Fields)
		}
		if outside.OK || !strings.Contains(outside.Error, "permission denied") || !inside.OK {
			t.Errorf("%s: writes %+v %+v", which, outside, inside)
		}
		if !slices.Equal(links.Names, []string{"lo"}) {
			t.Errorf("%s: devices %q", which, links.Names)
		}
		worked(t, allowed)
		refused(t, denied, fakenet.GitHubHost)
	}
	if !maps.Equal(first[0].Fields, later[0].Fields) {
		t.Errorf("the first process has %v, exec %v", first[0].Fields, later[0].Fields)
	}
	own := n.client(t, id, "read", "/etc/openshell-tls/ca-bundle.pem")
	if image := n.client(t, id, "read", bundlePath); own.Body == "" || own.Body != image.Body {
		t.Errorf("the image's CA bundle is not the sandbox's")
	}
}

// testBadInput: create fails with one clear line, which the user of ctr sees.
func testBadInput(t *testing.T, n *node) {
	n.policy(t, "broken", "version: 1\nnetwork_polices: {}\n")
	for want, annotations := range map[string][]string{
		"did you mean openshell.ai/policy?":         {"polcy=x"},
		"annotation openshell.ai/permissive":        {"permissive=maybe"},
		`policy "nowhere" does not exist`:           {"policy=nowhere"},
		"network_polices":                           {"policy=broken"},
		"annotation openshell.ai/permissive-ttl":    {"permissive=true", "permissive-ttl=soon"},
		"(permissive.max_ttl in its configuration)": {"permissive=true", "permissive-ttl=1000h"},
	} {
		id := n.name("bad")
		o := n.run(t, n.ctr(runArgs(append([]string{"--rm"}, runFlags(annotations...)...), id, []string{"/bin/true"})...))
		if o.Status == 0 || !strings.Contains(o.Stderr, want) || strings.Count(strings.TrimSpace(o.Stderr), "\n") > 0 {
			t.Errorf("%q: want %q in one line: %s", annotations, want, o)
		}
		if text := n.mustCtr(t, "container", "ls", "-q"); strings.Contains(text, id) {
			t.Errorf("%q: the container is left", annotations)
		}
	}
	o := n.foreground(t, append([]string{"--mount", "type=bind,src=" + n.stateDir + ",dst=/mnt,options=rbind:ro"}, runFlags()...), "/bin/true")
	if o.Status == 0 || !strings.Contains(o.Stderr, "holds openshell's state") {
		t.Errorf("a mount of the state directory: %s", o)
	}
}

// The options that ctr, CRI and docker give to a runtime that is not runc's own
// name the configuration of the node.
func testRuntimeOptions(t *testing.T, n *node) {
	other := filepath.Join(n.dir, "other.yaml")
	n.configure(t, other, map[string]any{
		"permissive": map[string]any{"allowed": false},
		"run_dir":    filepath.Join(n.dir, "other-run"),
	})
	t.Cleanup(func() { os.RemoveAll(filepath.Join(n.dir, "other-run")) })
	flags := append([]string{"--runtime-config-path", other}, runFlags()...)
	id := n.detached(t, flags, "/bin/sleep", "1000")
	if got := glob(t, filepath.Join(n.dir, "other-run/sandboxes", id+"-*")); len(got) != 1 {
		t.Errorf("sandboxes of the other configuration: %q", got)
	}
	if o := n.exec(t, id, "/bin/true"); o.Status != 0 {
		t.Errorf("exec: %s", o)
	}
	o := n.foreground(t, append(flags, "--annotation", "openshell.ai/permissive=true"), "/bin/true")
	if o.Status == 0 || !strings.Contains(o.Stderr, "permissive") {
		t.Errorf("permissive where the node forbids it: %s", o)
	}
	n.remove(t, id)
	eventually(t, "the sandbox's end", func() bool { return len(glob(t, filepath.Join(n.dir, "other-run/sandboxes/*"))) == 0 })
	missing := append([]string{"--runtime-config-path", filepath.Join(n.dir, "no.yaml")}, runFlags()...)
	if o := n.foreground(t, missing, "/bin/true"); o.Status == 0 || !strings.Contains(o.Stderr, "no.yaml") {
		t.Errorf("a configuration that is not there: %s", o)
	}
}
