// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

const labPolicy = `version: 1
network_policies:
  lab:
    endpoints:
      - {host: peer, port: 80, allowed_ips: ["172.16.0.0/12"]}
      - {host: ` + fakenet.WebHost + `, port: 80}
`

const addressPolicy = `version: 1
network_policies:
  addresses:
    endpoints:
      - {port: 80, allowed_ips: ["172.16.0.0/12"]}
      - {host: ` + fakenet.WebHost + `, port: 80}
`

// lab is a node with docker, and a network of its user's with a container that
// runc runs.
func lab(t *testing.T) (*node, *docker) {
	t.Helper()
	d := &docker{}
	n := newNode(t, d)
	must(t, os.WriteFile(filepath.Join(n.policyDir, "lab.yaml"), []byte(labPolicy), 0o600))
	n.mustRun(t, d.cli(n, "network", "create", "lab"))
	n.mustRun(t, d.cli(n, "run", "--detach", "--name", "peer", "--network", "lab", image, clientPath, "listen", "-http", "0.0.0.0:80"))
	return n, d
}

// On networks that users make docker has a resolver inside each container.
func TestDockerResolver(t *testing.T) {
	t.Parallel()
	n, _ := lab(t)
	before := n.snap(t)
	const secret = "what-was-learned.tunnel.example"
	r := n.client(t, options{network: "lab", annotations: policyOf("lab")},
		"get", "http://peer/", ",", "get", "http://"+fakenet.WebHost+"/lab",
		",", "dns", secret, ",", "dns", "-server", "127.0.0.11:53", secret, ",", "dns", "-server", "127.0.0.11:53", "-tcp", secret,
		",", "dns", "nobody."+fakenet.WebHost)
	if r[0].Status != http.StatusOK {
		t.Errorf("another container, by its name: %+v", r[0])
	}
	if r[1].Status != http.StatusOK {
		t.Errorf("a host outside: %+v", r[1])
	}
	for _, q := range n.net.Queries() {
		if strings.Contains(q.Name, "tunnel") {
			t.Errorf("a name that no rule allows left the sandbox: %+v", q)
		}
	}
	if len(n.net.Queries()) == 0 {
		t.Error("the name server was not asked for anything")
	}
	n.nothingLeft(t, before)
}

func TestDockerConnectsARunningContainer(t *testing.T) {
	t.Parallel()
	n, d := lab(t)
	before := n.snap(t)
	must(t, os.WriteFile(filepath.Join(n.policyDir, "addresses.yaml"), []byte(addressPolicy), 0o600))
	name := n.serve(t, options{annotations: policyOf("addresses")}, clientPath, "listen", "0.0.0.0:9000")
	alone := n.snap(t)
	addressOf := func(name string) string {
		return strings.TrimSpace(n.mustRun(t, d.cli(n, "inspect", "--format",
			`{{with index .NetworkSettings.Networks "lab"}}{{.IPAddress}}{{end}}`, name)))
	}
	peer := addressOf("peer")
	answers := func(address string) bool {
		return n.run(t, d.cli(n, "exec", "peer", clientPath, "tcp", "-t", "2s", address+":9000", "hello")).Status == 0
	}
	fetches := func(host string) bool {
		return strings.Contains(n.run(t, d.cli(n, "exec", name, clientPath, "get", "http://"+host+"/")).Stdout, `"status":200`)
	}
	for range 2 {
		n.mustRun(t, d.cli(n, "network", "connect", "lab", name))
		address := addressOf(name)
		eventually(t, "the container answers in its new network", func() bool { return answers(address) })
		eventually(t, "the container reaches its new network", func() bool { return fetches(peer) })
		n.mustRun(t, d.cli(n, "network", "disconnect", "lab", name))
		n.nothingLeft(t, alone)
		if answers(address) {
			t.Error("the container still answers in a network that it has left")
		}
	}
	// docker now has it leave by another gateway.
	n.mustRun(t, d.cli(n, "network", "connect", "lab", name))
	n.mustRun(t, d.cli(n, "network", "disconnect", "bridge", name))
	eventually(t, "the container reaches the network that is left", func() bool { return fetches(peer) })
	eventually(t, "the container reaches what is outside", func() bool { return fetches(fakenet.WebHost) })
	n.remove(t, name)
	n.nothingLeft(t, before)
}

// What docker does to a container while it runs is as without a sandbox.
func TestDockerCommands(t *testing.T) {
	t.Parallel()
	n, d := lab(t)
	name := n.serve(t, options{annotations: policyOf("lab")}, clientPath, "listen", "0.0.0.0:9000")
	there, back := filepath.Join(n.dir, "there"), filepath.Join(n.dir, "back")
	must(t, os.WriteFile(there, []byte("content\n"), 0o600))
	for _, c := range []struct{ command, want string }{
		{"top NAME -o pid,args", clientPath + " listen 0.0.0.0:9000"},
		{"exec --user 1000:1001 NAME /bin/busybox id -u", "1000"},
		{"update --memory 256m --memory-swap 256m NAME", name},
		{"stats --no-stream --format {{.MemUsage}} NAME", "/ 256MiB"},
		{"pause NAME", name},
		{"inspect --format {{.State.Status}} NAME", "paused"},
		{"unpause NAME", name},
		{"exec NAME /bin/busybox echo awake", "awake"},
		{"cp " + there + " NAME:/tmp/copy", ""},
		{"exec NAME /bin/busybox cat /tmp/copy", "content"},
		{"cp NAME:/tmp/copy " + back, ""},
		{"diff NAME", "A /tmp/copy"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.command, "NAME", name))
		if got := n.mustRun(t, d.cli(n, args...)); !strings.Contains(got, c.want) {
			t.Errorf("docker %s: %q, without %q", c.command, got, c.want)
		}
	}
	stats := n.mustRun(t, d.cli(n, "stats", "--no-stream", "--format", "{{.PIDs}}", name))
	if threads, err := strconv.Atoi(strings.TrimSpace(stats)); err != nil || threads < 1 {
		t.Errorf("docker stats counts %q threads", stats)
	}
	if text, err := os.ReadFile(back); err != nil || string(text) != "content\n" {
		t.Errorf("copied back: %q, %v", text, err)
	}
	n.remove(t, name)
}

// A container that is stopped and started again is plumbed anew.
func TestDockerRestart(t *testing.T) {
	t.Parallel()
	n, d := lab(t)
	name := n.serve(t, options{publish: "8080:9000", annotations: policyOf("lab")}, clientPath, "listen", "0.0.0.0:9000")
	n.mustRun(t, d.cli(n, "restart", "--timeout", "1", name))
	at := fakenet.OuterAddrs()[0].String() + ":8080"
	eventually(t, "the published port answers after a restart", func() bool {
		answer, _ := n.outside("tcp", at)
		return answer == "hello"
	})
	n.remove(t, name)
}
