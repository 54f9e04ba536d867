package e2e_test

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"openshell.ai/openshell/test/fakenet"
)

// apart makes openshell run in another network than the one that the fake
// internet is reached from, as where an engine prepares a namespace for each
// container: the fake internet is then only for those that name it.
func (w *world) apart() *world {
	w.elsewhere = true
	return w
}

// tables lists the nftables tables of the namespace that do runs in.
func tables(t *testing.T, do func(func() error) error) []string {
	t.Helper()
	var names []string
	must(t, do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := conn.ListTables()
		for _, table := range list {
			names = append(names, table.Name)
		}
		return err
	}))
	return names
}

func here(f func() error) error { return f() }

func TestPreparedNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t).apart()
	w.policy("web", webOnly)
	c := w.container(netnsPath(w.net), policy("web")).start()
	worked(t, c.client("get", "http://"+fakenet.WebHost+"/prepared"))
	refused(t, c.client("get", "http://"+fakenet.GitHubHost+"/prepared"), http.StatusForbidden)
	for _, r := range w.net.Requests() {
		host, _, err := net.SplitHostPort(r.Remote)
		must(t, err)
		if own := fakenet.OuterAddrs(); host != own[0].String() && host != own[1].String() {
			t.Errorf("a request came from %s, not from the prepared namespace", r.Remote)
		}
	}
	links := c.client("links")
	if !slices.Equal(links.Names, []string{"lo"}) {
		t.Errorf("devices %q", links.Names)
	}
	for _, own := range fakenet.OuterAddrs() {
		if !strings.Contains(links.Fields["lo"], own.String()) {
			t.Errorf("the container's address %s is not on lo: %+v", own, links.Fields)
		}
	}
	if got := tables(t, here); slices.Contains(got, "openshell") {
		t.Errorf("rules of a sandbox are in the engine's own network: %q", got)
	}
}

func TestContainersOfOneNamespaceShareASandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t).apart()
	w.policy("pod", webOnly)
	first := w.container(netnsPath(w.net), policy("pod"), args(clientPath, "listen", "127.0.0.1:9000")).start()
	second := w.container(netnsPath(w.net)).start()
	if got := w.sandboxes(); !slices.Equal(got, []string{first.sandboxID()}) {
		t.Fatalf("sandboxes %q", got)
	}
	eventually(t, patience, "the listener", func() bool { return strings.Contains(first.output(), "listening") })
	if r := second.client("tcp", "127.0.0.1:9000", "hello"); r.Body != "hello" {
		t.Errorf("loopback: %+v", r)
	}

	other := w.container(netnsPath(w.net), policy("other"))
	if o := other.run(); o.status != 1 || !strings.Contains(o.stderr, "openshell.ai/policy") {
		t.Errorf("a container that changes the pod's policy: %s", o)
	}
	loud := w.container(netnsPath(w.net), permissive)
	if o := loud.run(); o.status != 1 || !strings.Contains(o.stderr, "openshell.ai/permissive") {
		t.Errorf("a container that makes the pod permissive: %s", o)
	}

	first.delete()
	worked(t, second.client("get", "http://"+fakenet.WebHost+"/still"))
	second.delete()
	if len(w.sandboxes()) > 0 {
		t.Errorf("sandboxes after the last container: %q", w.sandboxes())
	}
}
