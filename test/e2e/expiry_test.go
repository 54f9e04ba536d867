// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func TestPermissiveTimeIsOver(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("brief", `version: 1
filesystem_policy: {read_write: [/data]}
network_policies:
  cdn:
    endpoints: [{host: cdn.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	c := w.Container(node.Policy("brief"), node.Permissive, node.Annotate(annotations.KeyPermissiveTTL, "20s")).Start()
	before := c.Client("write", "/outside/before", "x")
	allowed, denied := c.Stream(fakenet.CDNHost, "2400"), c.Stream(fakenet.StreamHost, "6000")
	deadline := c.Info().Deadline
	if !before.OK || time.Now().After(deadline) {
		t.Fatalf("too late for the test, or %+v", before)
	}

	r := w.Finish(denied).Results(c)[0]
	if late := time.Since(deadline); late < 0 || late > 20*time.Second { // all of it takes 60 s
		t.Errorf("a connection that is not allowed was closed %s after the time's end", late)
	}
	if r.OK || r.Bytes == 0 || r.Bytes == 6000 {
		t.Errorf("a connection that is not allowed ended with %+v", r)
	}
	if r := c.Client("get", "http://"+fakenet.StreamHost+"/after"); r.Status != http.StatusForbidden {
		t.Errorf("a new connection after the time: %+v", r)
	}
	if r := c.Client("write", "/outside/after", "x"); !refusedAccess(r) {
		t.Errorf("a write of a later exec: %+v", r)
	}
	if r := c.Client("write", "/data/after", "x"); !r.OK {
		t.Errorf("an allowed write of a later exec: %+v", r)
	}
	if r := w.Finish(allowed).Results(c)[0]; !r.OK || r.Bytes != 2400 {
		t.Errorf("an allowed connection over the time's end: %+v", r)
	}
	if c.Info().Mode != confine.ModeEnforcing || c.State() != "running" {
		t.Errorf("mode %s, state %s", c.Info().Mode, c.State())
	}
	node.Eventually(t, node.Patience, "the end on record", func() bool { return strings.Contains(w.AuditLog(c), "CONFIG:EXPIRED") })
}

func TestStopAtExpiry(t *testing.T) {
	t.Parallel()
	settings := map[string]any{"permissive": map[string]any{"default_ttl": "6s", "on_expiry": annotations.OnExpiryStop}}
	for name, c := range map[string]*node.Container{
		"by annotation": node.New(t).Container(node.Permissive, node.Annotate(annotations.KeyPermissiveTTL, "6s"),
			node.Annotate(annotations.KeyPermissiveOnExpiry, annotations.OnExpiryStop)),
		"by the node": node.New(t, settings).Container(node.Permissive),
	} {
		start := time.Now()
		if o := c.Run(); o.Status != 137 || time.Since(start) < 6*time.Second {
			t.Errorf("%s, after %s: %s", name, time.Since(start), o)
		}
		c.AwaitEnd()
	}
}
