// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// Not parallel: what is left is counted on the whole machine.
func TestSupervisorKilled(t *testing.T) {
	w := node.New(t)
	w.Policy("web", `version: 1
network_policies:
  web:
    endpoints: [{host: web.example, port: 80}, {host: 45.64.45.12, port: 80}, {host: stream.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	c := w.Container(node.Policy("web"))
	before := node.Snap(t, w.Places(c)...)
	c.Start()
	node.Worked(t, c.Client("get", "http://"+fakenet.WebHost+"/before"))
	stream := c.Stream(fakenet.StreamHost, "3000")
	w.Net.Reset()

	c.KillSupervisor()
	if r := w.Finish(stream).Results(c)[0]; r.OK {
		t.Errorf("a connection outlived the supervisor: %+v", r)
	}
	for _, url := range []string{"http://" + fakenet.WebHost + "/after", "http://45.64.45.12/after", "http://[2a0e:b107:45::c]/after"} {
		if r := c.Client("get", "-t", "5s", url); r.OK {
			t.Errorf("%s without a supervisor: %+v", url, r)
		}
	}
	if r := c.Client("udp", "-t", "2s", "45.64.45.53:53", "x"); r.OK {
		t.Errorf("UDP without a supervisor: %+v", r)
	}
	if len(w.Net.Requests()) > 0 || len(w.Net.Queries()) > 0 {
		t.Errorf("seen outside: %+v %+v", w.Net.Requests(), w.Net.Queries())
	}

	if state := c.State(); state != "running" {
		t.Errorf("state %s", state)
	}
	confined(t, "exec without a supervisor", c.Client("status"))
	if o := w.OCI("kill", c.ID, "KILL"); o.Status != 0 {
		t.Errorf("kill: %s", o)
	}
	node.Eventually(t, node.Patience, "the container's end", func() bool { return c.State() == "stopped" })
	if o := w.OCI("delete", c.ID); o.Status != 0 || o.Stderr != "" {
		t.Errorf("delete: %s", o)
	}
	// What it learned and logged stays.
	before.Allow(node.Files(w.StateDir)...)
	node.NothingLeft(t, "a container whose supervisor was killed", before, w.Places(c)...)
}

func TestNextCreateSweeps(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	first, second, third := w.Container().Start(), w.Container().Start(), w.Container()
	for _, c := range []*node.Container{first, second} {
		c.KillSupervisor()
	}
	// Somebody cleans up past openshell.
	node.Must(t, unix.Kill(first.PID(), unix.SIGKILL))
	node.Eventually(t, node.Patience, "the container's end", func() bool { return first.State() == "stopped" })
	if o := w.Runc("--root", w.Root, "delete", first.ID); o.Status != 0 {
		t.Fatal(o)
	}

	third.Start()
	want := []string{second.SandboxID(), third.SandboxID()}
	slices.Sort(want)
	if got := w.Sandboxes(); !slices.Equal(got, want) {
		t.Errorf("sandboxes %q, want %q: the dead one swept, the one whose container lives kept", got, want)
	}
	if _, err := os.Stat(first.Rootfs() + "/etc/openshell-tls"); !os.IsNotExist(err) {
		t.Errorf("the dead sandbox's mount point is still in its root file system: %v", err)
	}
}

func TestSameIDAfterTheSupervisorWasKilled(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container().Start()
	c.KillSupervisor()
	c.Delete()
	c.Start()
	if r := c.Client("links"); !r.OK {
		t.Errorf("%+v", r)
	}
}
