package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/test/fakenet"
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

func script(text string) edit { return args("/bin/sh", "-c", text) }

func TestLearningLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.container(policy("agent"), permissive, script(workload+"sleep 1000")).start()
	eventually(t, patience, "the workload's end", func() bool { return strings.Contains(first.output(), "finished\n") })
	eventually(t, patience, "every proposal, while the container runs", func() bool {
		return slices.Equal(subjects(w.proposals("agent")), learned)
	})
	github := w.proposalFor("agent", fakenet.GitHubHost)
	if got, want := allows(github), []string{"DELETE /repos/octo/old", "GET /repos/octo/*/issues", "GET /user", "POST /graphql"}; !slices.Equal(got, want) {
		t.Errorf("requests learned: %q, want %q", got, want)
	}
	first.delete()

	if out := w.operate("approve", "agent", "--all"); strings.Count(out, "approved ") != len(learned) {
		t.Errorf("approve --all: %s", out)
	}
	second := w.container(policy("agent"), script(workload))
	if o := second.run(); o.status != 0 {
		t.Fatalf("the same workload, enforcing: %s", o)
	}
	second.awaitEnd()
	if denied := w.denied(second); len(denied) > 0 {
		t.Errorf("denials: %+v", denied)
	}
	if list := w.proposals("agent"); !slices.Equal(subjects(list), learned) ||
		slices.ContainsFunc(list, func(p learn.Proposal) bool { return p.Status != learn.StatusApproved }) {
		t.Errorf("the enforcing run made proposals of its own: %q", subjects(list))
	}

	w.net.Reset()
	third := w.container(policy("agent")).start()
	for what, argv := range map[string][]string{
		"another host":   {"/usr/bin/agent", "get", "https://" + fakenet.WeatherHost + "/"},
		"another method": {"/usr/bin/agent", "get", "-X", "PUT", "-d", "x", "https://" + fakenet.GitHubHost + "/user"},
		"another path":   {"/usr/bin/agent", "get", "https://" + fakenet.GitHubHost + "/admin"},
		"another binary": {"/usr/bin/fetcher", "get", "https://" + fakenet.GitHubHost + "/user"},
		"another port":   {"/usr/bin/fetcher", "get", "https://" + fakenet.WebHost + "/index.html"},
	} {
		r := third.clientAs(argv[0], argv[1:]...)
		if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" || body.Detail == "" {
			t.Errorf("%s: %s", what, r.Body)
		}
	}
	if seen := w.net.Requests(); len(seen) > 0 {
		t.Errorf("an origin saw %+v", seen)
	}

	get := []string{"get", "https://" + fakenet.GitHubHost + "/user"}
	worked(t, third.clientAs("/usr/bin/agent", get...))
	w.operate("undo", "agent", github.ID)
	if r := third.clientAs("/usr/bin/agent", get...); r.Status != http.StatusForbidden {
		t.Errorf("after undo: %+v", r)
	}
	if p := w.proposalFor("agent", fakenet.GitHubHost); p.Status != learn.StatusPending {
		t.Errorf("after undo the proposal is %s", p.Status)
	}
}

func TestRunningSandboxTakesUpADecision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy("live", noNetwork)
	c := w.container(policy("live")).start()
	get := []string{"get", "http://" + fakenet.StreamHost + "/drip/1"}
	refused(t, c.client(get...), http.StatusForbidden)
	p := w.proposalFor("live", fakenet.StreamHost)
	if out := w.operate("approve", "live", p.ID); !strings.Contains(out, c.sandboxID()) {
		t.Errorf("approve does not say that the sandbox was reloaded: %s", out)
	}
	if r := c.client(get...); r.Status != http.StatusOK {
		t.Fatalf("after approval: %+v", r)
	}
	w.operate("undo", "live", p.ID)
	refused(t, c.client(get...), http.StatusForbidden)
	if seen := w.net.Saw(fakenet.StreamHost); len(seen) != 1 {
		t.Errorf("the origin saw %q, want what was asked between approval and undo", seen)
	}
}

func TestUndoClosesConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	visit := w.container(policy("live"), permissive, args(clientPath, "get", "http://"+fakenet.StreamHost+"/drip/3000"))
	visit.start()
	p := w.proposalFor("live", fakenet.StreamHost)
	visit.delete()
	w.operate("approve", "live", p.ID)
	w.net.Reset()

	c := w.container(policy("live")).start()
	stream := c.stream(fakenet.StreamHost, "3000")
	start := time.Now()
	w.operate("undo", "live", p.ID)
	if r := w.finish(stream).results(c)[0]; r.OK || r.Bytes >= 3000 || time.Since(start) > 20*time.Second { // all of it takes 30 s
		t.Errorf("%s after undo: %+v", time.Since(start), r)
	}
}

func TestRejectedProposalStaysRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	visit := func() {
		c := w.container(policy("picky"), permissive, args(clientPath, "get", "http://"+fakenet.WebHost+"/x"))
		if o := c.run(); o.status != 0 {
			t.Fatal(o)
		}
		c.awaitEnd()
	}
	visit()
	p := w.proposalFor("picky", fakenet.WebHost)
	w.operate("reject", "picky", p.ID, "--reason", "no business there")
	visit()
	list := w.proposals("picky")
	if len(list) != 1 || list[0].Status != learn.StatusRejected || list[0].Evidence.Hits != 2 || len(list[0].Provenance.Runs) != 2 {
		t.Errorf("after a second run: %+v", list)
	}
	if out := w.operate("approve", "picky", "--all"); !strings.Contains(out, "nothing is pending") {
		t.Errorf("approve --all: %s", out)
	}
}
