package e2e_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/fakenet"
)

// killSupervisor ends the sandbox's supervisor as the kernel does that is out of
// memory.
func (c *container) killSupervisor() {
	c.w.t.Helper()
	info := c.info()
	must(c.w.t, unix.Kill(info.Supervisor.PID, unix.SIGKILL))
	eventually(c.w.t, patience, "the supervisor's end", func() bool { return !info.Alive() })
}

// Not parallel: what is left is counted on the whole machine.
func TestSupervisorKilled(t *testing.T) {
	w := newWorld(t)
	w.policy("web", `version: 1
network_policies:
  web:
    endpoints: [{host: web.example, port: 80}, {host: 45.64.45.12, port: 80}, {host: stream.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	c := w.container(policy("web"))
	before := snap(t, w.places(c)...)
	c.start()
	worked(t, c.client("get", "http://"+fakenet.WebHost+"/before"))
	stream := c.stream(fakenet.StreamHost, "3000")
	w.net.Reset()

	c.killSupervisor()
	if r := w.finish(stream).results(c)[0]; r.OK {
		t.Errorf("a connection outlived the supervisor: %+v", r)
	}
	for _, url := range []string{"http://" + fakenet.WebHost + "/after", "http://45.64.45.12/after", "http://[2a0e:b107:45::c]/after"} {
		if r := c.client("get", "-t", "5s", url); r.OK {
			t.Errorf("%s without a supervisor: %+v", url, r)
		}
	}
	if r := c.client("udp", "-t", "2s", "45.64.45.53:53", "x"); r.OK {
		t.Errorf("UDP without a supervisor: %+v", r)
	}
	if len(w.net.Requests()) > 0 || len(w.net.Queries()) > 0 {
		t.Errorf("seen outside: %+v %+v", w.net.Requests(), w.net.Queries())
	}

	if state := c.state(); state != "running" {
		t.Errorf("state %s", state)
	}
	confined(t, "exec without a supervisor", c.client("status"))
	if o := w.oci("kill", c.id, "KILL"); o.status != 0 {
		t.Errorf("kill: %s", o)
	}
	eventually(t, patience, "the container's end", func() bool { return c.state() == "stopped" })
	if o := w.oci("delete", c.id); o.status != 0 || o.stderr != "" {
		t.Errorf("delete: %s", o)
	}
	// What it learned and logged stays.
	before.allow(files(w.stateDir)...)
	nothingLeft(t, "a container whose supervisor was killed", before, w.places(c)...)
}

func TestNextCreateSweeps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second, third := w.container().start(), w.container().start(), w.container()
	for _, c := range []*container{first, second} {
		c.killSupervisor()
	}
	// Somebody cleans up past openshell.
	must(t, unix.Kill(first.pid(), unix.SIGKILL))
	eventually(t, patience, "the container's end", func() bool { return first.state() == "stopped" })
	if o := w.runc("--root", w.root, "delete", first.id); o.status != 0 {
		t.Fatal(o)
	}

	third.start()
	want := []string{second.sandboxID(), third.sandboxID()}
	slices.Sort(want)
	if got := w.sandboxes(); !slices.Equal(got, want) {
		t.Errorf("sandboxes %q, want %q: the dead one swept, the one whose container lives kept", got, want)
	}
	if _, err := os.Stat(first.rootfs() + "/etc/openshell-tls"); !os.IsNotExist(err) {
		t.Errorf("the dead sandbox's mount point is still in its root file system: %v", err)
	}
}

func TestSameIDAfterTheSupervisorWasKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container().start()
	c.killSupervisor()
	c.delete()
	c.start()
	if r := c.client("links"); !r.OK {
		t.Errorf("%+v", r)
	}
}
