package e2e_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/test/fakenet"
)

// beginExec starts a program in the container without waiting for it.
func (c *container) beginExec(argv ...string) *exec.Cmd {
	c.w.t.Helper()
	return c.w.begin(append([]string{"--root", c.w.root, "exec", c.id}, argv...)...)
}

// stream starts a slow download in the container, of one byte each 10 ms, and
// waits until it is under way.
func (c *container) stream(host, bytes string) *exec.Cmd {
	c.w.t.Helper()
	cmd := c.beginExec(clientPath, "get", "-t", "2m", "http://"+host+"/drip/"+bytes)
	eventually(c.w.t, patience, "a stream from "+host, func() bool { return len(c.w.net.Saw(host)) > 0 })
	return cmd
}

func TestPermissiveTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy("brief", `version: 1
filesystem_policy: {read_write: [/data]}
network_policies:
  cdn:
    endpoints: [{host: cdn.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	c := w.container(policy("brief"), permissive, annotate(annotations.KeyPermissiveTTL, "20s")).start()
	before := c.client("write", "/outside/before", "x")
	allowed, denied := c.stream(fakenet.CDNHost, "2400"), c.stream(fakenet.StreamHost, "6000")
	deadline := c.info().Deadline
	if !before.OK || time.Now().After(deadline) {
		t.Fatalf("too late for the test, or %+v", before)
	}

	time.Sleep(time.Until(deadline))
	r := w.finish(denied).results(c)[0]
	if late := time.Since(deadline); late > 10*time.Second { // all of it takes 60 s
		t.Errorf("a connection that is not allowed was closed %s too late", late)
	}
	if r.OK || r.Bytes == 0 || r.Bytes == 6000 {
		t.Errorf("a connection that is not allowed ended with %+v", r)
	}
	if r := c.client("get", "http://"+fakenet.StreamHost+"/after"); r.Status != http.StatusForbidden {
		t.Errorf("a new connection after the time: %+v", r)
	}
	if r := c.client("write", "/outside/after", "x"); !refusedAccess(r) {
		t.Errorf("a write of a later exec: %+v", r)
	}
	if r := c.client("write", "/data/after", "x"); !r.OK {
		t.Errorf("an allowed write of a later exec: %+v", r)
	}
	if r := w.finish(allowed).results(c)[0]; !r.OK || r.Bytes != 2400 {
		t.Errorf("an allowed connection over the time's end: %+v", r)
	}
	if c.info().Mode != confine.ModeEnforcing || c.state() != "running" {
		t.Errorf("mode %s, state %s", c.info().Mode, c.state())
	}
	eventually(t, patience, "the end on record", func() bool { return strings.Contains(w.auditLog(c), "CONFIG:EXPIRED") })
}

func TestStopAtExpiry(t *testing.T) {
	t.Parallel()
	node := map[string]any{"permissive": map[string]any{"default_ttl": "6s", "on_expiry": annotations.OnExpiryStop}}
	for name, c := range map[string]*container{
		"by annotation": newWorld(t).container(permissive, annotate(annotations.KeyPermissiveTTL, "6s"),
			annotate(annotations.KeyPermissiveOnExpiry, annotations.OnExpiryStop)),
		"by the node": newWorld(t, node).container(permissive),
	} {
		start := time.Now()
		if o := c.run(); o.status != 137 || time.Since(start) < 6*time.Second {
			t.Errorf("%s, after %s: %s", name, time.Since(start), o)
		}
		c.awaitEnd()
	}
}
