// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"testing"

	"openshell.ai/openshell/proxy/names"
)

// A workload that looks a name up in its hosts file connects to an address
// that no synthetic one stands in for. Policy speaks of the name.
func TestHostsFileGivesAddressesTheirNames(t *testing.T) {
	withHosts := func(_ *room, c *Config) {
		c.Hosts = names.ParseHosts("45.64.45.12 first.corp.example api.corp.example\n45.64.45.13 other.corp.example\n")
		c.Resolve = names.NewUpstream(c.Outer, nil, c.Hosts).Resolve
	}
	r := newRoom(t, enforcing("{host: api.corp.example, port: 80, protocol: rest, access: read-only}"), withHosts)
	c := r.client(false)
	request, err := http.NewRequest("GET", "http://45.64.45.12/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "api.corp.example"
	resp, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the policy allows one of the names: status %d", resp.StatusCode)
	}
	if resp := r.get(c, "http://45.64.45.13/x"); resp.StatusCode != 403 {
		t.Errorf("no name is allowed: status %d", resp.StatusCode)
	}
	r.want(
		"connect allowed l4 api.corp.example:80 policy=p",
		"request allowed l7 api.corp.example:80 GET http:/x 200 policy=p tls=none",
		"request denied l4 other.corp.example:80 GET http:/x 403 tls=none EVIDENCE (endpoint other.corp.example:80 is not allowed by any policy)",
	)
}
