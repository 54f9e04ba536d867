// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// cycles is how often a container is made and deleted.
func cycles(t *testing.T) int {
	text := os.Getenv("OPENSHELL_E2E_CYCLES")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	node.Must(t, err)
	return n
}

// Not parallel: what is left is counted on the whole machine.
func TestCyclesLeaveNothing(t *testing.T) {
	host, prepared := node.New(t), node.New(t).Apart()
	for mode, how := range map[string]struct {
		c     *node.Container
		count int
	}{
		"enforcing":          {host.Container(), cycles(t)},
		"permissive":         {host.Container(node.Permissive), cycles(t) / 4},
		"prepared namespace": {prepared.Container(node.NetnsPath(prepared.Net)), cycles(t) / 4},
	} {
		w, c := how.c.World, how.c
		cycle := func() {
			c.Start()
			c.Client("get", "http://"+fakenet.WebHost+"/")
			c.Delete()
		}
		bundle := node.Files(c.Bundle)
		cycle() // makes the directories that stay, which are not the bundle's
		before := node.Snap(t, w.Places()...)
		before.Allow(bundle...)
		for range how.count {
			cycle()
		}
		if mode == "permissive" {
			// Every permissive run is on record.
			runs, err := filepath.Glob(filepath.Join(w.StateDir, "policies", c.ID, "runs", "*.json"))
			node.Must(t, err)
			if len(runs) != how.count+1 {
				t.Errorf("%d runs on record, want %d", len(runs), how.count+1)
			}
			before.Allow(runs...)
		}
		node.NothingLeft(t, fmt.Sprintf("%d %s cycles", how.count, mode), before, w.Places(c)...)
	}
}

// Not parallel, as above.
func TestForegroundRunsLeaveNothing(t *testing.T) {
	w := node.New(t)
	c := w.Container(node.Args("/bin/true"))
	bundle := node.Files(c.Bundle)
	c.Run()
	c.AwaitEnd()
	before := node.Snap(t, w.Places()...)
	before.Allow(bundle...)
	for range cycles(t) {
		// Each run finds the sandbox of the one before gone, or waits for it.
		if o := c.Run(); o.Status != 0 {
			t.Fatal(o)
		}
	}
	node.NothingLeft(t, "foreground runs", before, w.Places(c)...)
}

func TestConnectionsLeaveNothingInTheSupervisor(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Permissive).Start()
	pid := c.Info().Supervisor.PID
	use := func(n int) {
		t.Helper()
		argv := []string{node.ClientPath, "get"}
		for i := range n {
			argv = append(argv, fmt.Sprintf("http://%s/%d", fakenet.WebHost, i), fmt.Sprintf("https://%s/%d", fakenet.GitHubHost, i))
		}
		if o := c.Exec(argv...); o.Status != 0 {
			t.Fatal(o)
		}
		if r := c.Client("tcp", fakenet.EchoHost+":7", "x"); !r.OK {
			t.Fatalf("%+v", r)
		}
	}
	sockets := func() int {
		n := 0
		for _, link := range node.Glob(t, fmt.Sprintf("/proc/%d/fd/*", pid)) {
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
	node.Eventually(t, node.Patience, fmt.Sprintf("no more than the %d sockets from before", base), func() bool { return sockets() <= base })
}
