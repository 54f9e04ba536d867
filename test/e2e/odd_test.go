// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// Answers that a client takes by itself are ones it gets: of ICY servers, with a length that is said twice, with names
// in any case.
func TestOddAnswersArrive(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/odd answers")
	wantCommand(t, "curl")
	w := node.New(t)
	const script = "curl -sS --http0.9 http://" + fakenet.WebHost + "/odd/icy; echo\n" +
		"curl -sS http://" + fakenet.WebHost + "/odd/length; echo\n" +
		"curl -sSi http://" + fakenet.WebHost + "/odd/names | tr -d '\\r' | grep -E '^(X-jenkins-CLI|etag): '\n"
	const want = "music\nabc\nX-jenkins-CLI: 1\netag: x\n"
	for _, mode := range []string{"--permissive", ""} {
		if o := shell(w, mode, "odd", script); o.Status != 0 || o.Stdout != want {
			t.Fatalf("%q: %s", mode, o)
		}
		if mode != "" {
			w.Operate("approve", "odd", "--all")
		}
	}
}
