// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// explicitProxy is where a client finds a proxy that is configured for one.
const explicitProxy = "10.200.0.1:3128"

const (
	weatherOnly = `version: 1
network_policies:
  weather:
    endpoints: [{host: api.weather.example, port: 443}]
    binaries: [{path: /usr/bin/client}]
`
	noNetwork = `version: 1
network_policies: {}
`
	readOnlyAPI = `version: 1
network_policies:
  weather_api:
    endpoints: [{host: api.weather.example, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/client}]
`
)

// pair is a permissive container and its enforcing twin, with the same policy
// text under names of their own, so that neither learns for the other.
type pair struct {
	*node.World
	permissive, enforcing *node.Container
}

func newPair(t *testing.T, text string) pair {
	t.Helper()
	w := node.New(t)
	w.Policy("lenient", text)
	w.Policy("strict", text)
	return pair{w,
		w.Container(node.Policy("lenient"), node.Permissive).Start(),
		w.Container(node.Policy("strict")).Start()}
}

// refusal is the body of a refused request.
type refusal struct {
	Error, Detail, Reason, Policy, Rule, Layer, Protocol, Method, Path, Host, Binary string

	Port        int
	RuleMissing struct {
		Type, Layer, Method, Path, Host, Binary string
		Port                                    int
	} `json:"rule_missing"`
}

func refused(t *testing.T, r node.Result, status int) refusal {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d (%s), want %d: %s", r.Status, r.Error, status, r.Body)
	}
	if got := header(r, "Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q of a refusal", got)
	}
	var body refusal
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
		t.Fatalf("a refusal that is no JSON: %q", r.Body)
	}
	return body
}

func header(r node.Result, name string) string {
	return http.Header(r.Header).Get(name)
}

func TestUnlistedHostBesideAListedOne(t *testing.T) {
	t.Parallel()
	p := newPair(t, weatherOnly)
	for _, c := range []*node.Container{p.permissive, p.enforcing} {
		node.Worked(t, c.Client("get", "https://"+fakenet.WeatherHost+"/listed"))
		r := c.Client("connect-proxy", explicitProxy, fakenet.WeatherHost+":443", "/listed")
		if r.Connect != http.StatusOK {
			t.Errorf("CONNECT to a listed host: %d", r.Connect)
		}
		node.Worked(t, r)
	}

	r := p.enforcing.Client("connect-proxy", explicitProxy, fakenet.GitHubHost+":443", "/tunnel")
	body := refused(t, r, http.StatusForbidden)
	if body.Error != "policy_denied" || body.Detail != "CONNECT api.github.example:443 not permitted by policy" ||
		body.Reason != "endpoint api.github.example:443 is not allowed by any policy" {
		t.Errorf("refused CONNECT: %s", r.Body)
	}
	r = p.enforcing.Client("get", "https://"+fakenet.GitHubHost+"/transparent")
	if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" ||
		body.Reason != "endpoint api.github.example:443 is not allowed by any policy" {
		t.Errorf("refused transparent request: %s", r.Body)
	}
	p.Unseen(fakenet.GitHubHost)

	node.Worked(t, p.permissive.Client("connect-proxy", explicitProxy, fakenet.GitHubHost+":443", "/tunnel"))
	node.Worked(t, p.permissive.Client("get", "https://"+fakenet.GitHubHost+"/transparent"))
	if seen := p.Net.Saw(fakenet.GitHubHost); !slices.Equal(seen, []string{"GET /tunnel", "GET /transparent"}) {
		t.Errorf("the unlisted host saw %q", seen)
	}

	node.Eventually(t, node.Patience, "the denials on record", func() bool { return len(p.Denied(p.enforcing)) >= 2 })
	node.Eventually(t, node.Patience, "the permissive allowances on record", func() bool {
		return strings.Count(p.AuditLog(p.permissive), fakenet.GitHubHost) >= 2
	})
	for _, e := range p.Events(p.permissive) {
		unlisted := e.Dst.Domain == fakenet.GitHubHost
		if unlisted && (e.Action != "Allowed" || e.Disposition != "Logged" || e.Detail == "") {
			t.Errorf("a permissive allowance is on record as %s/%s because %q", e.Action, e.Disposition, e.Detail)
		}
		if e.Dst.Domain == fakenet.WeatherHost && (e.Action != "Allowed" || e.Disposition != "Allowed") {
			t.Errorf("listed traffic is on record as %s/%s", e.Action, e.Disposition)
		}
	}
	if denied := p.Denied(p.enforcing); denied[0].Disposition != "Blocked" {
		t.Errorf("the enforcing twin's denials on record: %+v", denied)
	}
}

func TestEmptyPolicy(t *testing.T) {
	t.Parallel()
	p := newPair(t, noNetwork)
	node.Worked(t, p.permissive.Client("connect-proxy", explicitProxy, fakenet.GitHubHost+":443", "/a"))
	node.Worked(t, p.permissive.Client("get", "https://"+fakenet.WeatherHost+"/b"))

	r := p.enforcing.Client("connect-proxy", explicitProxy, fakenet.StreamHost+":443", "/a")
	if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" ||
		body.Detail != "CONNECT stream.example:443 not permitted by policy" ||
		body.Reason != "network connections not allowed by policy" {
		t.Errorf("refused CONNECT: %s", r.Body)
	}
	p.Unseen(fakenet.StreamHost)
}

func TestInternalTargetsStayRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t, weatherOnly+`  reckless:
    endpoints: [{host: loopback.example, port: 80}, {host: metadata.example, port: 80}]
    binaries: [{path: /usr/bin/client}]
`)
	for _, c := range []*node.Container{p.permissive, p.enforcing} {
		for _, target := range []string{"127.0.0.1:80", "169.254.169.254:80", "[::1]:80", "[fd00:ec2::254]:80",
			"10.45.0.10:80", "[::ffff:169.254.169.254]:80"} {
			r := c.Client("connect-proxy", "-plain", explicitProxy, target, "/")
			body := refused(t, r, http.StatusForbidden)
			if c == p.permissive && (body.Error != "ssrf_denied" || !strings.HasPrefix(body.Detail, "CONNECT ")) {
				t.Errorf("permissive CONNECT %s: %s", target, r.Body)
			}
		}
		// A policy that names them does not help.
		for _, host := range []string{fakenet.LoopbackHost, fakenet.MetadataHost} {
			r := c.Client("get", "http://"+host+"/")
			if body := refused(t, r, http.StatusForbidden); body.Error != "ssrf_denied" {
				t.Errorf("%s: %s", host, r.Body)
			}
		}
	}
	for _, url := range []string{"http://169.254.169.254/latest", "http://10.45.0.10/", "http://[fd45:a::10]/",
		"http://" + fakenet.GoogleMetadata + "/", "http://" + fakenet.MixedHost + "/", "http://" + fakenet.CNAMEPrivate + "/"} {
		r := p.permissive.Client("get", url)
		if body := refused(t, r, http.StatusForbidden); body.Error != "ssrf_denied" {
			t.Errorf("%s: %s", url, r.Body)
		}
	}
	p.Unseen("blocked")
	p.Unseen("loopback")
	if list := p.Settled("lenient"); len(list) > 0 {
		t.Errorf("proposals to reach the inside: %q", node.Subjects(list))
	}
}

func TestProposalForAnUnlistedHost(t *testing.T) {
	t.Parallel()
	p := newPair(t, weatherOnly)
	if r := p.permissive.Client("tcp", fakenet.EchoHost+":7", "hello"); r.Body != "hello" {
		t.Fatalf("permissive: %+v", r)
	}
	proposal := p.ProposalFor("lenient", fakenet.EchoHost)
	e := proposal.Rule.Endpoints[0]
	if proposal.Status != learn.StatusPending || proposal.Kind != learn.KindNetwork || proposal.Binary != node.ClientPath ||
		len(proposal.BinarySHA256) != 64 || !slices.Equal(e.Ports, []uint16{7}) || e.Protocol != "" || len(e.Rules) > 0 ||
		proposal.Provenance.Mode != learn.ModePermissive {
		t.Errorf("proposal %+v", proposal)
	}
	if !slices.Equal(proposal.Evidence.ResolvedIPs, addressesOf(fakenet.EchoHost)) {
		t.Errorf("evidence %+v", proposal.Evidence)
	}

	if r := p.enforcing.Client("tcp", "-t", "5s", fakenet.EchoHost+":7", "hello"); r.OK {
		t.Fatalf("enforcing: %+v", r)
	}
	if seen := p.Net.Saw(fakenet.EchoHost); len(seen) != 1 {
		t.Errorf("the host saw %q, want one permissive connection", seen)
	}
	if strict := p.ProposalFor("strict", fakenet.EchoHost); strict.Provenance.Mode != learn.ModeEnforcing {
		t.Errorf("a denial in enforcing mode became %+v", strict)
	}
}

func addressesOf(host string) []string {
	var out []string
	for _, a := range fakenet.Addrs(host) {
		out = append(out, a.String())
	}
	return out
}

func TestForwardProxy(t *testing.T) {
	t.Parallel()
	p := newPair(t, weatherOnly)
	r := p.permissive.Client("forward-proxy", explicitProxy, "http://"+fakenet.WebHost+"/get")
	node.Worked(t, r)
	if seen := p.Net.Saw(fakenet.WebHost); !slices.Equal(seen, []string{"GET /get"}) {
		t.Errorf("the origin saw %q", seen)
	}
	r = p.enforcing.Client("forward-proxy", explicitProxy, "http://"+fakenet.WebHost+"/get")
	if body := refused(t, r, http.StatusForbidden); body.Error != "policy_denied" ||
		body.Detail != "GET web.example:80/get not permitted by policy" {
		t.Errorf("refused forward request: %s", r.Body)
	}
	if seen := p.Net.Saw(fakenet.WebHost); len(seen) != 1 {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestPostToAReadOnlyEndpoint(t *testing.T) {
	t.Parallel()
	p := newPair(t, readOnlyAPI)
	post := []string{"get", "-X", "POST", "-d", "{}", "https://" + fakenet.WeatherHost + "/v1/messages"}
	node.Worked(t, p.permissive.Client(post...))
	if seen := p.Net.Saw(fakenet.WeatherHost); !slices.Equal(seen, []string{"POST /v1/messages"}) {
		t.Fatalf("the origin saw %q", seen)
	}
	proposal := p.ProposalFor("lenient", fakenet.WeatherHost)
	e := proposal.Rule.Endpoints[0]
	if e.Protocol != "rest" || e.Enforcement != "enforce" || !slices.Equal(node.Allows(proposal), []string{"POST /v1/messages"}) {
		t.Errorf("proposal %+v", proposal.Rule)
	}

	r := p.enforcing.Client(post...)
	body := refused(t, r, http.StatusForbidden)
	if got := header(r, "X-OpenShell-Policy"); got != "weather_api" {
		t.Errorf("X-OpenShell-Policy: %q", got)
	}
	want := refusal{Error: "policy_denied", Policy: "weather_api", Rule: "POST /v1/messages", Layer: "l7", Protocol: "rest",
		Method: "POST", Path: "/v1/messages", Host: fakenet.WeatherHost, Port: 443, Binary: node.ClientPath,
		Detail: body.Detail, Reason: body.Reason, RuleMissing: body.RuleMissing}
	if body != want || body.Detail == "" {
		t.Errorf("refused: %s", r.Body)
	}
	if m := body.RuleMissing; m.Type != "rest_allow" || m.Layer != "l7" || m.Method != "POST" || m.Path != "/v1/messages" ||
		m.Host != fakenet.WeatherHost || m.Port != 443 || m.Binary != node.ClientPath {
		t.Errorf("rule_missing: %s", r.Body)
	}
	node.Worked(t, p.enforcing.Client("get", "https://"+fakenet.WeatherHost+"/v1/messages"))
	if seen := p.Net.Saw(fakenet.WeatherHost); !slices.Equal(seen, []string{"POST /v1/messages", "GET /v1/messages"}) {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestOnlyWhatIsMissingIsProposed(t *testing.T) {
	t.Parallel()
	p := newPair(t, readOnlyAPI)
	for range 3 {
		node.Worked(t, p.permissive.Client("get", "https://"+fakenet.WeatherHost+"/allowed"))
	}
	node.Worked(t, p.permissive.Client("get", "https://"+fakenet.GitHubHost+"/repos"))
	p.ProposalFor("lenient", fakenet.GitHubHost)
	if got, want := node.Subjects(p.Settled("lenient")), []string{node.ClientPath + " api.github.example:443"}; !slices.Equal(got, want) {
		t.Errorf("proposals %q, want %q", got, want)
	}

	node.Worked(t, p.enforcing.Client("get", "https://"+fakenet.WeatherHost+"/allowed"))
	if denied := p.Denied(p.enforcing); len(denied) > 0 {
		t.Errorf("denials of allowed traffic: %+v", denied)
	}
	if list := p.Settled("strict"); len(list) > 0 {
		t.Errorf("proposals for allowed traffic: %q", node.Subjects(list))
	}
}
