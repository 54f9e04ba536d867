// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func TestPreparedNamespace(t *testing.T) {
	t.Parallel()
	w := node.New(t).Apart()
	w.Policy("web", webOnly)
	c := w.Container(node.NetnsPath(w.Net), node.Policy("web")).Start()
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/prepared"))
	refused(t, c.Client("get", "http://"+fakenet.GitHubHost+"/prepared"), http.StatusForbidden)
	for _, r := range w.Net.Requests() {
		host, _, err := net.SplitHostPort(r.Remote)
		node.Must(t, err)
		if own := fakenet.OuterAddrs(); host != own[0].String() && host != own[1].String() {
			t.Errorf("a request came from %s, not from the prepared namespace", r.Remote)
		}
	}
	links := c.Client("links")
	if !slices.Equal(links.Names, []string{"lo"}) {
		t.Errorf("devices %q", links.Names)
	}
	for _, own := range fakenet.OuterAddrs() {
		if !strings.Contains(links.Fields["lo"], own.String()) {
			t.Errorf("the container's address %s is not on lo: %+v", own, links.Fields)
		}
	}
	if got := node.Tables(t, node.Here); slices.Contains(got, "openshell") {
		t.Errorf("rules of a sandbox are in the engine's own network: %q", got)
	}
}

func TestContainersOfOneNamespaceShareASandbox(t *testing.T) {
	t.Parallel()
	w := node.New(t).Apart()
	w.Policy("pod", webOnly)
	first := w.Container(node.NetnsPath(w.Net), node.Policy("pod"), node.Args(node.ClientPath, "listen", "127.0.0.1:9000")).Start()
	second := w.Container(node.NetnsPath(w.Net)).Start()
	if got := w.Sandboxes(); !slices.Equal(got, []string{first.SandboxID()}) {
		t.Fatalf("sandboxes %q", got)
	}
	node.Eventually(t, node.Patience, "the listener", func() bool { return strings.Contains(first.Output(), "listening") })
	if r := second.Client("tcp", "127.0.0.1:9000", "hello"); r.Body != "hello" {
		t.Errorf("loopback: %+v", r)
	}

	other := w.Container(node.NetnsPath(w.Net), node.Policy("other"))
	if o := other.Run(); o.Status != 1 || !strings.Contains(o.Stderr, "openshell.ai/policy") {
		t.Errorf("a container that changes the pod's policy: %s", o)
	}
	loud := w.Container(node.NetnsPath(w.Net), node.Permissive)
	if o := loud.Run(); o.Status != 1 || !strings.Contains(o.Stderr, "openshell.ai/permissive") {
		t.Errorf("a container that makes the pod permissive: %s", o)
	}

	first.Delete()
	node.Worked(t, second.Client("get", "http://"+fakenet.WebHost+"/still"))
	second.Delete()
	if len(w.Sandboxes()) > 0 {
		t.Errorf("sandboxes after the last container: %q", w.Sandboxes())
	}
}
