// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/fakenet"
)

// engines are all that are tested.
var engines = map[string]engine{
	"podman-netavark": podman{backend: "netavark"},
	"podman-cni":      podman{backend: "cni"},
	"docker":          &docker{},
	"nerdctl":         nerdctl{runtime: "openshell"},
	"nerdctl-shim":    nerdctl{runtime: "io.containerd.openshell.v1"},
	"hook":            hook{},
}

// forEach runs a test under each engine.
func forEach(t *testing.T, test func(t *testing.T, n *node)) {
	for name, e := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newNode(t, e))
		})
	}
}

func TestEngines(t *testing.T) {
	forEach(t, func(t *testing.T, n *node) {
		before := n.snap(t)
		for _, step := range []struct {
			name string
			run  func(*testing.T, *node)
		}{
			{"learn and enforce", learnAndEnforce},
			{"devices", devices},
			{"no network", noNetwork},
			{"the host's network", hostNetwork},
			{"published port", publishedPort},
			{"published UDP port", publishedUDP},
			{"another container's network", sharedNetwork},
		} {
			n.net.Reset()
			t.Run(step.name, func(t *testing.T) { step.run(t, n) })
		}
		n.nothingLeft(t, before)
	})
}

// learnAndEnforce is what openshell is for: a permissive run, approval, an
// enforcing run.
func learnAndEnforce(t *testing.T, n *node) {
	learning := options{annotations: append(policyOf("agent"), permissively...)}
	if r := n.client(t, learning, "get", "http://"+fakenet.WebHost+"/learned")[0]; r.Status != http.StatusOK {
		t.Fatalf("permissive: %+v", r)
	}
	n.openshell(t, "approve", "agent", "--all")
	r := n.client(t, options{annotations: policyOf("agent")}, "get", "http://"+fakenet.WebHost+"/learned",
		",", "get", "http://"+fakenet.GitHubHost+"/learned")
	if r[0].Status != http.StatusOK || r[1].Status != http.StatusForbidden {
		t.Errorf("enforcing: %+v", r)
	}
	if got := n.net.Saw(fakenet.WebHost); len(got) != 2 {
		t.Errorf("the origin saw %q", got)
	}
	if got := n.net.Saw(fakenet.GitHubHost); len(got) != 0 {
		t.Errorf("an origin that is not allowed saw %q", got)
	}
}

// devices: the workload sees its address, but no card that has one. docker wants to
// find its card there.
func devices(t *testing.T, n *node) {
	r := n.client(t, options{annotations: policyOf("agent")}, "links")[0]
	want := []string{"lo"}
	if _, ok := n.engine.(*docker); ok {
		want = append(want, "eth0")
	}
	if !slices.Equal(r.Names, want) || r.Fields["eth0"] != "" {
		t.Errorf("the workload's devices are %q, with %q", r.Names, r.Fields)
	}
	if !strings.Contains(r.Fields["lo"], "10.") && !strings.Contains(r.Fields["lo"], "172.") {
		t.Errorf("the workload does not see an address of the engine's: %q", r.Fields["lo"])
	}
}

func noNetwork(t *testing.T, n *node) {
	o := options{network: "none", annotations: append(policyOf("agent"), permissively...)}
	r := n.client(t, o, "get", "-t", "3s", "http://"+fakenet.WebHost+"/none", ",", "get", "-t", "3s", "http://"+fakenet.OuterAddrs()[0].String()+"/",
		",", "get", "-t", "3s", "http://203.0.113.1/")
	if slices.ContainsFunc(r, func(r result) bool { return r.Status == http.StatusOK }) {
		t.Errorf("something is reachable: %+v", r)
	}
	if got := n.net.Requests(); len(got) != 0 {
		t.Errorf("the internet saw %+v", got)
	}
	if got := n.net.Queries(); len(got) != 0 {
		t.Errorf("the name server saw %+v", got)
	}
}

func hostNetwork(t *testing.T, n *node) {
	o := options{network: "host", annotations: policyOf("agent")}
	r := n.client(t, o, "links", ",", "get", "http://"+fakenet.WebHost+"/learned", ",", "get", "http://"+fakenet.GitHubHost+"/x")
	if !slices.Equal(r[0].Names, []string{"lo"}) || r[1].Status != http.StatusOK || r[2].Status != http.StatusForbidden {
		t.Errorf("got %+v", r)
	}
}

func publishedPort(t *testing.T, n *node) {
	published(t, n, "tcp", "8080:9000", "0.0.0.0:9000")
}

// publishedUDP is port 53, which leads to the sandbox's own name server for
// connections from inside.
func publishedUDP(t *testing.T, n *node) {
	published(t, n, "udp", "8080:53/udp", "-udp", "0.0.0.0:53")
}

func published(t *testing.T, n *node, network, ports string, listen ...string) {
	name := n.serve(t, options{publish: ports, annotations: policyOf("agent")}, append([]string{clientPath, "listen"}, listen...)...)
	at := net.JoinHostPort(fakenet.OuterAddrs()[0].String(), "8080")
	var last string
	eventually(t, "the published port answers", func() bool {
		answer, err := n.outside(network, at)
		if last = answer; err != nil {
			last = err.Error()
		}
		return last == "hello"
	})
	n.remove(t, name)
	if _, err := n.outside(network, at); err == nil {
		t.Error("the published port answers though the container is gone")
	}
}

func sharedNetwork(t *testing.T, n *node) {
	name := n.serve(t, options{annotations: policyOf("agent")}, clientPath, "listen", "127.0.0.1:9000")
	defer n.remove(t, name)
	if got := n.sandboxes(t); len(got) != 1 {
		t.Fatalf("sandboxes %q", got)
	}
	o := options{network: "container:" + name}
	deadline := time.Now().Add(patience)
	for {
		r := n.client(t, o, "tcp", "127.0.0.1:9000", "hello", ",", "get", "http://"+fakenet.WebHost+"/learned",
			",", "get", "http://"+fakenet.GitHubHost+"/x")
		if r[0].Body == "hello" {
			if r[1].Status != http.StatusOK || r[2].Status != http.StatusForbidden {
				t.Errorf("the joined container is not under the sandbox's policy: %+v", r[1:])
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the other container's loopback: %+v", r)
		}
	}
}

// snap lists what containers could leave: devices, rules and namespaces of the
// machine's network, leases, sandboxes.
func (n *node) snap(t *testing.T) map[string]bool {
	t.Helper()
	s := map[string]bool{}
	links, err := n.on("ip", "-br", "link").Output()
	must(t, err)
	for line := range linesOf(string(links)) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		s["device "+name] = true
	}
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		rules, err := n.on(tool).Output()
		must(t, err)
		for line := range linesOf(string(rules)) {
			if strings.HasPrefix(line, "-A") {
				s["rule "+line] = true
			}
		}
	}
	for _, pattern := range []string{"run/netns/*", "run/docker/netns/*", "var/run/docker/netns/*", "run/containers/networks/*", "var/lib/cni/networks/*/*", "var/lib/cni/results/*"} {
		list, err := filepath.Glob(n.Path(pattern))
		must(t, err)
		for _, path := range list {
			if base := filepath.Base(path); base != "lock" && base != "last_reserved_ip.0" && base != "default" && base != "aardvark.lock" && base != "ipam.db" {
				s["file "+path[strings.Index(path, "/root/")+5:]] = true
			}
		}
	}
	for _, box := range n.sandboxes(t) {
		s["sandbox "+box] = true
	}
	processes, err := filepath.Glob(n.Path("proc/[0-9]*/cmdline"))
	must(t, err)
	for _, path := range processes {
		text, _ := os.ReadFile(path)
		if strings.Contains(string(text), "supervise") {
			s["process "+strings.ReplaceAll(string(text), "\x00", " ")] = true
		}
	}
	return s
}

// nothingLeft fails unless all becomes as it was before. What engines make once
// and keep, their bridge and the chains for it, is taken from before as well as
// from a first container's end.
func (n *node) nothingLeft(t *testing.T, before map[string]bool) {
	t.Helper()
	var left map[string]bool
	deadline := time.Now().Add(patience)
	for {
		left = map[string]bool{}
		for item := range n.snap(t) {
			if !before[item] && !kept(item) {
				left[item] = true
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n%s\nnetwork namespaces are held by:\n%s", strings.Join(sorted(left), "\n"), strings.Join(n.holders(), "\n"))
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// holders lists who keeps which network namespace: a device stays as long as somebody does. One that
// nobody holds, and that is there all the same, has a connection that is not yet at its end.
func (n *node) holders() []string {
	found := map[string]bool{}
	for _, pattern := range []string{"proc/[0-9]*/ns/net", "proc/[0-9]*/fd/*"} {
		links, _ := filepath.Glob(n.Path(pattern))
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil || !strings.HasPrefix(target, "net:[") {
				continue
			}
			process := filepath.Dir(filepath.Dir(link))
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			found[fmt.Sprintf("%s %s %s %s", target, filepath.Base(process), strings.TrimSpace(string(name)), filepath.Base(filepath.Dir(link)))] = true
		}
	}
	mounts, _ := os.ReadFile(n.Path("proc/1/mountinfo"))
	for line := range linesOf(string(mounts)) {
		if strings.Contains(line, " nsfs ") {
			found["mounted: "+line] = true
		}
	}
	return sorted(found)
}

// kept tells what engines keep after their first container: the bridge, and rules
// that name no container's address.
func kept(item string) bool {
	switch kind, rest, _ := strings.Cut(item, " "); kind {
	case "device":
		return slices.Contains([]string{"podman0", "cni-podman0", "docker0", "nerdctl0"}, rest)
	case "rule":
		return !strings.Contains(rest, "/32") && !strings.Contains(rest, "dport 8080")
	}
	return false
}
