// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/test/fakenet"
)

// TestGuardHoldsInBothModes has learned each host, which earns no trust in
// private addresses.
func TestGuardHoldsInBothModes(t *testing.T) {
	hosts := []string{
		fakenet.PrivateHost, fakenet.MetadataHost, fakenet.GoogleMetadata, fakenet.LoopbackHost, fakenet.MixedHost,
		fakenet.NAT64Host, fakenet.SixToFourHost, fakenet.BenchmarkHost, fakenet.CNAMEPrivate, fakenet.MappedHost,
	}
	for i := range fakenet.BlockedAddrs() {
		hosts = append(hosts, fmt.Sprintf("%d.ranges.example", i))
	}
	var endpoints []string
	for _, host := range hosts {
		endpoints = append(endpoints, "{host: "+host+", port: 80}")
	}
	learned := compiled(strings.Join(endpoints, "\n"), true)
	for _, v := range []decision.Snapshot{{Effective: learned}, {Effective: learned, Permissive: true}, permissive("")} {
		r := newRoom(t, v)
		c := r.client(false)
		for _, host := range hosts {
			r.v6 = host == fakenet.NAT64Host || host == fakenet.SixToFourHost || host == fakenet.MappedHost
			req := r.request("GET", "http://"+host+"/", "")
			resp, err := c.Do(req)
			if err != nil {
				if strings.Contains(err.Error(), "without an address") { // a family the host has none of
					r.v6 = !r.v6
					resp, err = c.Do(req)
				}
				if err != nil {
					t.Errorf("%s: %v", host, err)
					continue
				}
			}
			resp.Body.Close()
			if resp.StatusCode != 403 {
				t.Errorf("%s: status %d", host, resp.StatusCode)
			}
		}
		if seen := internet.Requests(); len(seen) != 0 {
			t.Errorf("reached %v", seen)
		}
		records := r.await(len(hosts))
		for _, rec := range records {
			if rec.Outcome != decision.Denied || rec.Layer != LayerSSRF || rec.Evidence {
				t.Errorf("record %s", line(rec))
			}
		}
		if len(records) != len(hosts) {
			t.Errorf("%d records of %d refusals", len(records), len(hosts))
		}
	}
}

func TestRealAddressesArePassedThroughTheGuard(t *testing.T) {
	r := newRoom(t, permissive(""))
	for _, a := range fakenet.BlockedAddrs() {
		resp := r.say(r.mustDial(net.JoinHostPort(a.String(), "80")), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 403 {
			t.Errorf("%s: status %d", a, resp.StatusCode)
		}
	}
	if seen := internet.Requests(); len(seen) != 0 {
		t.Errorf("reached %v", seen)
	}
}

// TestRebinding asks for a name that is public only the first time it is
// looked up: the sandbox's DNS server has spent that on the existence check, or
// the connection goes to the public address. It never goes to the private one.
func TestRebinding(t *testing.T) {
	learned := compiled("{host: "+fakenet.RebindHost+", port: 80}", true)
	for _, v := range []decision.Snapshot{{Effective: learned}, permissive("")} {
		r := newRoom(t, v)
		c := r.client(false)
		for range 3 {
			c.CloseIdleConnections()
			resp, err := c.Get("http://" + fakenet.RebindHost + "/")
			if err == nil {
				resp.Body.Close()
			}
		}
		for _, seen := range internet.Requests() {
			if seen.Origin == "blocked" {
				t.Errorf("reached %s", seen.Local)
			}
		}
	}
}

func TestOperatorOpensAPrivateHost(t *testing.T) {
	r := newRoom(t, enforcing("{host: private.example, port: 80, protocol: rest, access: full, allowed_ips: [10.45.0.0/16, 'fd45::/16']}"))
	r.get(r.client(false), "http://private.example/x").echo(t)
	r.want(
		"connect allowed l4 private.example:80 policy=p",
		"request allowed l7 private.example:80 GET http:/x 200 policy=p tls=none",
	)
}
