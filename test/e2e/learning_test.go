// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// workload is what is learned: several programs, methods and paths, HTTPS, HTTP
// on two ports, TLS that is not HTTP, and TCP where either side speaks first.
const workload = `set -e
agent get https://api.github.example/repos/octo/1001/issues https://api.github.example/repos/octo/1002/issues https://api.github.example/user
agent get -X POST -d '{}' https://api.github.example/graphql
agent get -X DELETE https://api.github.example/repos/octo/old
fetcher get http://web.example/index.html http://web.example:8080/feed
fetcher get https://cdn.example/lib.js https://cdn.example/bytes/200000
pusher tcp echo.example:7 hello
pusher banner mail.example:25
client tls-raw tls.example:8883 hello
wget -q -O /dev/null http://stream.example/file
echo finished
`

// learned is what the workload's proposals are about.
var learned = []string{
	"/bin/busybox stream.example:80",
	"/usr/bin/agent api.github.example:443",
	"/usr/bin/client tls.example:8883",
	"/usr/bin/fetcher cdn.example:443",
	"/usr/bin/fetcher web.example:80",
	"/usr/bin/fetcher web.example:8080",
	"/usr/bin/pusher echo.example:7",
	"/usr/bin/pusher mail.example:25",
}

func TestLearningLoop(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	first := w.Container(node.Policy("agent"), node.Permissive, node.Script(workload+"sleep 1000")).Start()
	node.Eventually(t, node.Patience, "the workload's end", func() bool { return strings.Contains(first.Output(), "finished\n") })
	node.Eventually(t, node.Patience, "every proposal, while the container runs", func() bool {
		return slices.Equal(node.Subjects(w.Proposals("agent")), learned)
	})
	github := w.ProposalFor("agent", fakenet.GitHubHost)
	if got, want := node.Allows(github), []string{"DELETE /repos/octo/old", "GET /repos/octo/*/issues", "GET /user", "POST /graphql"}; !slices.Equal(got, want) {
		t.Errorf("requests learned: %q, want %q", got, want)
	}
	first.Delete()

	if out := w.Operate("approve", "agent", "--all"); strings.Count(out, "approved ") != len(learned) {
		t.Errorf("approve --all: %s", out)
	}
	second := w.Container(node.Policy("agent"), node.Script(workload))
	if o := second.Run(); o.Status != 0 {
		t.Fatalf("the same workload, enforcing: %s", o)
	}
	second.AwaitEnd()
	if denied := w.Denied(second); len(denied) > 0 {
		t.Errorf("denials: %+v", denied)
	}
	if list := w.Proposals("agent"); !slices.Equal(node.Subjects(list), learned) ||
		slices.ContainsFunc(list, func(p learn.Proposal) bool { return p.Status != learn.StatusApproved }) {
		t.Errorf("the enforcing run made proposals of its own: %q", node.Subjects(list))
	}

	w.Net.Reset()
	third := w.Container(node.Policy("agent")).Start()
	for what, argv := range map[string][]string{
		"another host":   {"/usr/bin/agent", "get", "https://" + fakenet.WeatherHost + "/"},
		"another method": {"/usr/bin/agent", "get", "-X", "PUT", "-d", "x", "https://" + fakenet.GitHubHost + "/user"},
		"another path":   {"/usr/bin/agent", "get", "https://" + fakenet.GitHubHost + "/admin"},
		"another binary": {"/usr/bin/fetcher", "get", "https://" + fakenet.GitHubHost + "/user"},
		"another port":   {"/usr/bin/fetcher", "get", "https://" + fakenet.WebHost + "/index.html"},
	} {
		r := third.ClientAs(argv[0], argv[1:]...)
		if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" || body.Detail == "" {
			t.Errorf("%s: %s", what, r.Body)
		}
	}
	if seen := w.Net.Requests(); len(seen) > 0 {
		t.Errorf("an origin saw %+v", seen)
	}

	get := []string{"get", "https://" + fakenet.GitHubHost + "/user"}
	node.Worked(t, third.ClientAs("/usr/bin/agent", get...))
	w.Operate("undo", "agent", github.ID)
	if r := third.ClientAs("/usr/bin/agent", get...); r.Status != http.StatusForbidden {
		t.Errorf("after undo: %+v", r)
	}
	if p := w.ProposalFor("agent", fakenet.GitHubHost); p.Status != learn.StatusPending {
		t.Errorf("after undo the proposal is %s", p.Status)
	}
}

func TestRunningSandboxTakesUpADecision(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("live", noNetwork)
	c := w.Container(node.Policy("live")).Start()
	get := []string{"get", "http://" + fakenet.StreamHost + "/drip/1"}
	refused(t, c.Client(get...), http.StatusForbidden)
	p := w.ProposalFor("live", fakenet.StreamHost)
	if out := w.Operate("approve", "live", p.ID); !strings.Contains(out, c.SandboxID()) {
		t.Errorf("approve does not say that the sandbox was reloaded: %s", out)
	}
	if r := c.Client(get...); r.Status != http.StatusOK {
		t.Fatalf("after approval: %+v", r)
	}
	w.Operate("undo", "live", p.ID)
	refused(t, c.Client(get...), http.StatusForbidden)
	if seen := w.Net.Saw(fakenet.StreamHost); len(seen) != 1 {
		t.Errorf("the origin saw %q, want what was asked between approval and undo", seen)
	}
}

func TestUndoClosesConnections(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	visit := w.Container(node.Policy("live"), node.Permissive, node.Args(node.ClientPath, "get", "http://"+fakenet.StreamHost+"/drip/3000"))
	visit.Start()
	p := w.ProposalFor("live", fakenet.StreamHost)
	visit.Delete()
	w.Operate("approve", "live", p.ID)
	w.Net.Reset()

	c := w.Container(node.Policy("live")).Start()
	stream := c.Stream(fakenet.StreamHost, "3000")
	w.Operate("undo", "live", p.ID)
	if r := w.Finish(stream).Results(c)[0]; r.OK || r.Bytes >= 3000 {
		t.Errorf("after undo: %+v", r)
	}
}

func TestRejectedProposalStaysRejected(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	visit := func() {
		c := w.Container(node.Policy("picky"), node.Permissive, node.Args(node.ClientPath, "get", "http://"+fakenet.WebHost+"/x"))
		if o := c.Run(); o.Status != 0 {
			t.Fatal(o)
		}
		c.AwaitEnd()
	}
	visit()
	p := w.ProposalFor("picky", fakenet.WebHost)
	w.Operate("reject", "picky", p.ID, "--reason", "no business there")
	visit()
	list := w.Proposals("picky")
	if len(list) != 1 || list[0].Status != learn.StatusRejected || list[0].Evidence.Hits != 2 || len(list[0].Provenance.Runs) != 2 {
		t.Errorf("after a second run: %+v", list)
	}
	if out := w.Operate("approve", "picky", "--all"); !strings.Contains(out, "nothing is pending") {
		t.Errorf("approve --all: %s", out)
	}
}

// A permissive run that was denied nothing has shown what its policy is: the default is enough.
func TestNothingNeeded(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/nothing needed")
	w := node.New(t)
	run := func(edits ...node.Edit) node.Outcome {
		return w.Container(append([]node.Edit{node.Policy("modest"), node.Script("echo finished; cat /outside/file")}, edits...)...).Run()
	}
	idle := func(s *specs.Spec) { node.Script("echo finished")(s) }
	if o := run(idle); o.Status == 0 || !strings.Contains(o.Stderr, `policy "modest" does not exist`) {
		t.Errorf("before: %s", o)
	}
	finished(t, run(idle, node.Permissive))
	finished(t, run(idle))
	if o := run(); o.Status == 0 || !strings.Contains(o.Stdout, "finished") {
		t.Errorf("what was not needed then: %s", o)
	}
	contains(t, "approve", w.Operate("approve", "modest", "--all"), "nothing is pending")
}

// An API of many operations is learned whole: no bound cuts its rules short before they are readable.
func TestWideAPI(t *testing.T) {
	cases.Show(t, "clients/wide API")
	t.Parallel()
	nouns := strings.Fields("accounts albums boards branches builds cards charges comments commits customers deployments environments gists groups hooks invoices " +
		"issues jobs labels members milestones orders pages payments projects releases")
	verbs := strings.Fields("archive assign close copy export history lock merge restore status")
	requests := func(run int) [][]string {
		var all [][]string
		for _, noun := range nouns { // 26
			argv := []string{"get"}
			for i, verb := range verbs { // 10
				for n := range 10 {
					argv = append(argv, fmt.Sprintf("http://web.example/v1/%s/%d/%s", noun, 1000*run+37*i+n, verb))
				}
			}
			all = append(all, argv)
		}
		return all
	}
	w := node.New(t)
	c := w.Container(node.Policy("wide"), node.Permissive).Start()
	for _, argv := range requests(1) {
		if o := c.Exec(append([]string{node.ClientPath}, argv...)...); o.Status != 0 {
			t.Fatal(o)
		}
	}
	proposals := w.Settled("wide")
	if len(proposals) != 1 || len(node.Allows(proposals[0])) > 260 || proposals[0].CutShort() {
		t.Fatalf("%d proposals; %d rules, %+v", len(proposals), len(node.Allows(proposals[0])), proposals[0].Flags)
	}
	w.Operate("approve", "wide", "--all")
	c.Delete()
	c = w.Container(node.Policy("wide")).Start()
	for _, argv := range requests(7) {
		if o := c.Exec(append([]string{node.ClientPath}, argv...)...); o.Status != 0 || strings.Contains(o.Stdout, `"status":403`) {
			t.Fatal(o)
		}
	}
	if denied := w.Denied(c); len(denied) > 0 {
		t.Errorf("%d denials, the first: %+v", len(denied), denied[0])
	}
	if r := c.Client("get", "http://web.example/v1/secrets/1/status"); r.Status != http.StatusForbidden {
		t.Errorf("an operation that was not seen: %+v", r)
	}
}
