// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// A mirror with a private address is learned like a public one where the node says
// that its range is the site's own. Others stay out of reach.
func TestTrustedRange(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/private mirror")
	w := node.New(t, map[string]any{"addresses": map[string]any{"trusted": []string{"10.45.0.0/16", "fd45:a::/32"}}})
	get := []string{"get", "http://" + fakenet.PrivateHost + "/mirror"}
	c := w.Container(node.Policy("agent"), node.Permissive).Start()
	node.Worked(t, c.Client(get...))
	for _, host := range []string{fakenet.MetadataHost, fakenet.LoopbackHost, fakenet.BenchmarkHost} {
		if r := c.Client("get", "http://"+host+"/"); !strings.Contains(r.Body, "ssrf_denied") {
			t.Errorf("%s: %+v", host, r)
		}
	}
	w.ProposalFor("agent", fakenet.PrivateHost)
	c.Delete()
	c.AwaitEnd()
	w.Operate("approve", "agent", "--all")
	enforcing := w.Container(node.Policy("agent")).Start()
	node.Worked(t, enforcing.Client(get...))
	if answer := w.OpenShell("policy", "explain", "agent", "--binary", node.ClientPath, "--url", "http://"+fakenet.PrivateHost+"/mirror"); answer.Status != 0 {
		t.Errorf("explain: %s", answer)
	}
}
