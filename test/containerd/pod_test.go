// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/spdystream"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/test/fakenet"
)

const greeting = "hello from the container"

// serving is a container's web server.
var serving = []string{clientPath, "listen", "-http", "0.0.0.0:8080"}

// webPod runs a pod with a web server and a container beside it.
func (n *node) webPod(t *testing.T, annotations ...string) (p *pod, web, side string) {
	t.Helper()
	p = n.newPod(t, annotations...)
	must(t, p.run(t))
	web, side = p.mustContainer(t, "web", serving...), p.mustContainer(t, "side", "/bin/sleep", "1000")
	eventually(t, "the web server answers", func() bool { return p.client(t, side, "get", "-t", "5s", "http://127.0.0.1:8080/").OK })
	return p, web, side
}

func testPod(t *testing.T, n *node) {
	policy := n.name("pod")
	p, web, side := n.webPod(t, "policy", policy, "permissive", "true")
	n.oneSandbox(t, p, web, side)
	r := p.client(t, side, "get", "-t", "5s", "http://127.0.0.1:8080/")
	if !strings.Contains(r.Body, greeting) {
		t.Errorf("the other container on loopback: %+v", r)
	}
	links := p.client(t, side, "links")
	if !slices.Equal(links.Names, []string{"lo"}) || !strings.Contains(links.Fields["lo"], p.address(t)+"/32") {
		t.Errorf("devices of a pod at %s: %+v", p.address(t), links)
	}
	n.probe(t, p.address(t)+":8080")
	p.forward(t, "8080")

	worked(t, p.client(t, side, "get", wanted))
	n.awaitProposal(t, policy, fakenet.WeatherHost)
	n.openshell(t, "approve", policy, "--all")
	p.remove(t)

	p, web, side = n.webPod(t, "policy", policy)
	n.oneSandbox(t, p, web, side)
	worked(t, p.client(t, web, "get", wanted))
	worked(t, p.client(t, side, "get", wanted))
	n.net.Reset()
	refused(t, p.client(t, side, "get", unlisted), fakenet.GitHubHost)
	if seen := n.net.Saw(fakenet.GitHubHost); len(seen) > 0 {
		t.Errorf("an unlisted host was reached: %q", seen)
	}
	n.probe(t, p.address(t)+":8080")
	p.forward(t, "8080")
	if r := p.client(t, side, "write", "/outside/file"); r.OK {
		t.Error("Landlock does not hold in a pod's container")
	}
}

// oneSandbox fails unless the pod's containers, the sandbox container included,
// are in one sandbox, which its one shim runs.
func (n *node) oneSandbox(t *testing.T, p *pod, containers ...string) sandbox.Info {
	t.Helper()
	info := n.sandboxOf(t, p.id)
	var ids []string
	for _, c := range info.Containers {
		ids = append(ids, c.ID)
	}
	want := append([]string{p.id}, containers...)
	slices.Sort(ids)
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Errorf("containers of the sandbox %q, want %q", ids, want)
	}
	if all, err := sandbox.List(n.runDir); err != nil || len(all) != 1 {
		t.Errorf("sandboxes: %+v %v", all, err)
	}
	return info
}

// probe connects from the node, as the kubelet does.
func (n *node) probe(t *testing.T, address string) {
	t.Helper()
	conn, err := n.net.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("probe %s: %v", address, err)
	}
	defer conn.Close()
	greeted(t, conn)
}

// greeted fails unless the web server is at the other end.
func greeted(t *testing.T, conn io.ReadWriter) {
	t.Helper()
	_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
	must(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	if !strings.Contains(string(body), greeting) {
		t.Errorf("answered %q", body)
	}
}

// forward uses a port of the pod as kubectl port-forward does: by the protocol
// portforward.k8s.io over SPDY.
func (p *pod) forward(t *testing.T, port string) {
	t.Helper()
	r, err := p.api.PortForward(t.Context(), &cri.PortForwardRequest{PodSandboxId: p.id})
	must(t, err)
	at, err := url.Parse(r.Url)
	must(t, err)
	conn, err := p.n.net.DialContext(t.Context(), "tcp", at.Host)
	must(t, err)
	defer conn.Close()
	upgrade(t, conn, at)
	streams, err := spdystream.NewConnection(conn, false)
	must(t, err)
	defer streams.Close()
	go streams.Serve(spdystream.NoOpStreamHandler)
	open := func(kind string) *spdystream.Stream {
		s, err := streams.CreateStream(http.Header{"streamType": {kind}, "port": {port}, "requestID": {"0"}}, nil, false)
		must(t, err)
		must(t, s.Wait())
		return s
	}
	failure, data := open("error"), open("data")
	must(t, failure.Close())
	greeted(t, data)
	must(t, data.Close())
	if text, err := io.ReadAll(failure); err != nil || len(text) > 0 {
		t.Errorf("port-forward: %s %v", text, err)
	}
}

// upgrade turns an HTTP connection into a SPDY one.
func upgrade(t *testing.T, conn net.Conn, at *url.URL) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"+
		"X-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n", at.RequestURI(), at.Host)
	must(t, err)
	// Nothing comes after the header before the client has opened a stream.
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("port-forward: %s", answer.Status)
	}
}

// testPodImages: the image of a pod's container decides what a link leads to and
// which CAs are trusted, not that of the pod's sandbox container, which has neither.
func testPodImages(t *testing.T, n *node) {
	policy := n.name("images")
	n.policy(t, policy, `version: 1
network_policies:
  weather:
    binaries: [{path: `+toolPath+`}]
    endpoints:
      - {host: api.weather.example, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /**}}]}
`)
	p := n.newPod(t, "policy", policy)
	must(t, p.run(t))
	side := p.mustContainer(t, "side", "/bin/sleep", "1000")
	worked(t, p.client(t, side, "get", wanted))
	for _, path := range []string{bundlePath, "/etc/openshell-tls/ca-bundle.pem"} {
		if r := p.client(t, side, "read", path); !strings.HasPrefix(r.Body, bundleMark) {
			t.Errorf("%s begins with %.40q", path, r.Body)
		}
	}
}

// testPodInput: the pod's annotations rule, and errors reach the kubelet.
func testPodInput(t *testing.T, n *node) {
	p := n.newPod(t, "polcy", "x")
	if err := p.run(t); err == nil || !strings.Contains(err.Error(), "did you mean openshell.ai/policy?") {
		t.Errorf("a misspelt annotation of a pod: %v", err)
	}
	policy := n.name("pod")
	n.policy(t, policy, "version: 1\n")
	p = n.newPod(t, "policy", policy)
	must(t, p.run(t))
	for want, annotations := range map[string][]string{
		"annotation openshell.ai/permissive": {"permissive", "true"},
		"annotation openshell.ai/policy":     {"policy", "other"},
	} {
		id, err := p.container(t, n.name("bad"), annotations, "/bin/true")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a container with %q in a pod with policy %s: %s %v", annotations, policy, id, err)
		}
	}
	id, err := p.container(t, "repeats", []string{"policy", policy}, "/bin/sleep", "1000")
	must(t, err)
	n.oneSandbox(t, p, id)
}

func testKilledPodShim(t *testing.T, n *node) {
	p, web, side := n.webPod(t, "permissive", "true")
	info := n.oneSandbox(t, p, web, side)
	n.killShim(t, info.Supervisor.PID)
	for _, id := range []string{web, side} {
		p.awaitContainer(t, id, cri.ContainerState_CONTAINER_EXITED)
	}
	eventually(t, "the sandbox is cleared away", func() bool { return len(glob(t, filepath.Join(n.runDir, "sandboxes/*"))) == 0 })
	if conn, err := n.net.DialContext(t.Context(), "tcp", p.address(t)+":8080"); err == nil {
		conn.Close()
		t.Error("a dead pod is reached")
	}
}

func testPodDaemonRestart(t *testing.T, n *node) {
	p, web, side := n.webPod(t, "permissive", "true")
	before := n.oneSandbox(t, p, web, side)
	address := p.address(t)
	n.stopDaemon(t)
	n.probe(t, address+":8080")
	n.startDaemon(t)
	p.api = n.kubelet(t)
	worked(t, p.client(t, side, "get", wanted))
	n.probe(t, address+":8080")
	p.forward(t, "8080")
	late := p.mustContainer(t, "late", "/bin/sleep", "1000")
	if after := n.oneSandbox(t, p, web, side, late); after.Supervisor != before.Supervisor {
		t.Errorf("the sandbox is another shim's: %+v, was %+v", after.Supervisor, before.Supervisor)
	}
}
