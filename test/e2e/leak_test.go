package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// cycles is how often a container is made and deleted.
func cycles(t *testing.T) int {
	text := os.Getenv("OPENSHELL_E2E_CYCLES")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// Not parallel: what is left is counted on the whole machine.
func TestCyclesLeaveNothing(t *testing.T) {
	host, prepared := newWorld(t), newWorld(t).apart()
	for mode, how := range map[string]struct {
		c     *container
		count int
	}{
		"enforcing":          {host.container(), cycles(t)},
		"permissive":         {host.container(permissive), cycles(t) / 4},
		"prepared namespace": {prepared.container(netnsPath(prepared.net)), cycles(t) / 4},
	} {
		w, c := how.c.w, how.c
		cycle := func() {
			c.start()
			c.client("get", "http://"+fakenet.WebHost+"/")
			c.delete()
		}
		bundle := files(c.bundle)
		cycle() // makes the directories that stay, which are not the bundle's
		before := snap(t, w.places()...)
		before.allow(bundle...)
		for range how.count {
			cycle()
		}
		if mode == "permissive" {
			// Every permissive run is on record.
			runs, err := filepath.Glob(filepath.Join(w.stateDir, "policies", c.id, "runs", "*.json"))
			must(t, err)
			if len(runs) != how.count+1 {
				t.Errorf("%d runs on record, want %d", len(runs), how.count+1)
			}
			before.allow(runs...)
		}
		nothingLeft(t, fmt.Sprintf("%d %s cycles", how.count, mode), before, w.places(c)...)
	}
}

// Not parallel, as above.
func TestForegroundRunsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	c := w.container(args("/bin/true"))
	bundle := files(c.bundle)
	c.run()
	c.awaitEnd()
	before := snap(t, w.places()...)
	before.allow(bundle...)
	for range cycles(t) {
		// Each run finds the sandbox of the one before gone, or waits for it.
		if o := c.run(); o.status != 0 {
			t.Fatal(o)
		}
	}
	nothingLeft(t, "foreground runs", before, w.places(c)...)
}

func TestConnectionsLeaveNothingInTheSupervisor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(permissive).start()
	pid := c.info().Supervisor.PID
	use := func(n int) {
		t.Helper()
		argv := []string{clientPath, "get"}
		for i := range n {
			argv = append(argv, fmt.Sprintf("http://%s/%d", fakenet.WebHost, i), fmt.Sprintf("https://%s/%d", fakenet.GitHubHost, i))
		}
		if o := c.exec(argv...); o.status != 0 {
			t.Fatal(o)
		}
		if r := c.client("tcp", fakenet.EchoHost+":7", "x"); !r.OK {
			t.Fatalf("%+v", r)
		}
	}
	sockets := func() int {
		n := 0
		for _, link := range glob(t, fmt.Sprintf("/proc/%d/fd/*", pid)) {
			// Pipes for splicing are kept for the next connection.
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
				n++
			}
		}
		return n
	}
	use(2)
	base := sockets()
	for range 8 {
		use(2)
	}
	eventually(t, patience, fmt.Sprintf("no more than the %d sockets from before", base), func() bool { return sockets() <= base })
}
