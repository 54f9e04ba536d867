// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/internal/policytest"
)

// oracleDice makes what the oracle is asked about.
type oracleDice struct{ policytest.Dice }

var (
	oracleHosts = []string{"example.com", "a.example.com", "b.example.com", "a.b.example.com", "x-api.example.com", "api-x.example.com", "a.s3.eu.example.com", "c.d.s3.us.example.com",
		"aexample.com", "localhost", "10.0.0.5", "8.8.8.8", "2001:4860::8", "fd00::5"}
	oracleHostPatterns = []string{"*.example.com", "**.example.com", "*-api.example.com", "api-*.example.com", "*a*.example.com", "*.s3.*.example.com", "**.s3.*.example.com", "*.*.example.com", "a.*.example.com", ""}
	oracleBinaries     = []string{"/usr/bin/curl", "/usr/bin/python3.11", "/usr/local/bin/curl", "/opt/x/bin/y", "/opt/x/y/bin/z", "/bin/[a]", "curl"}
	oracleBinPatterns  = []string{"/usr/bin/*", "/usr/**", "**/curl", "/opt/*/bin/*", "/opt/**/bin/*", "/usr/bin/python3.*", "/usr/{bin,sbin}/c*", "**", "/bin/[a]", "/bin/[a]*"}
	oraclePaths        = []string{"/", "/v1", "/v1/", "/v1/a", "/v1/a/b", "/v1/a/b/c", "/v2/a", "/v1/ab", "/v1/*", "/v1/a.b", "/A", "/v1/%2Fa"}
	oraclePathPatterns = []string{"**", "/**", "/v1/**", "/v1/*", "/*", "/*/a", "/v1/**/b", "/v1/a?", "/v1/[ab]", "/v1/[!a]*", "/{v1,v2}/a", `/v1/\*`, "/v?/*/b", "/v1/a.*"}
	oracleIPs          = []string{"8.8.8.8", "1.1.1.1", "10.0.0.5", "10.1.0.1", "172.16.3.4", "127.0.0.1", "169.254.169.254", "0.1.2.3", "224.0.0.1", "255.255.255.255", "100.64.0.1",
		"100.100.100.200", "198.18.0.1", "::1", "::", "fe80::1", "fd00::5", "fd00:ec2::254", "ff02::1", "2001:4860::8", "::ffff:10.0.0.5", "::ffff:8.8.8.8", "64:ff9b::a00:5", "64:ff9b::808:808",
		"2002:7f00:1::", "2002:808:808::1", "::8.8.8.8", "::127.0.0.1"}
	oracleQueries = []string{"", "q=1", "q=12", "q=1&q=2", "r=1", "q=1&r=a", "q=a.b", "q=a/b", "q=", "q"}
)

func pick[T any](d oracleDice, of []T) T { return of[d.IntN(len(of))] }

func (d oracleDice) either(some, others []string) string {
	if d.Chance(50) {
		return pick(d, some)
	}
	return pick(d, others)
}

func (d oracleDice) ports() (uint16, []uint16) {
	if d.Chance(60) {
		return []uint16{443, 443, 80, 6443}[d.IntN(4)], nil
	}
	return 0, [][]uint16{{443}, {443, 80}, {80, 8080}, {6443, 443}}[d.IntN(4)]
}

func (d oracleDice) match() policy.L7Match {
	m := policy.L7Match{Method: d.One("GET", "get", "POST", "*", "HEAD", "DELETE"), Path: d.either(oraclePathPatterns, []string{"/", "/v1/a", "/v1/a/b"})}
	if d.Chance(25) {
		m.Query = map[string]policy.Matcher{d.One("q", "r"): {Any: [][]string{{"1"}, {"*"}, {"**"}, {"1*"}, {"a*"}, {"a", "1"}, {"?"}}[d.IntN(7)]}}
	}
	return m
}

func (d oracleDice) endpoint() policy.Endpoint {
	e := policy.Endpoint{Host: d.either(oracleHosts, oracleHostPatterns)}
	e.Port, e.Ports = d.ports()
	if e.Host == "" || d.Chance(20) {
		e.AllowedIPs = []string{d.One("10.0.0.0/16", "10.0.0.5", "8.8.8.0/24", "fd00::/64", "172.16.0.0/12")}
	}
	switch {
	case d.Chance(30):
		return e
	case d.Chance(8):
		e.Protocol = policy.ProtocolUDP
		return e
	}
	e.Protocol, e.Enforcement = policy.ProtocolREST, d.One("enforce", "enforce", "audit", "")
	e.Path = d.One("", "", "", "/**", "/v1/**", "/v1/*", "/v1/a", "/*/a")
	e.AllowEncodedSlash = d.Chance(10)
	d.Decide(&e, d.match)
	return e
}

func (d oracleDice) policy() *policy.Policy {
	p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
	for i := range 1 + d.IntN(4) {
		r := &policy.Rule{}
		for range d.IntN(3) {
			r.Binaries = append(r.Binaries, policy.Binary{Path: d.either(oracleBinaries[:6], oracleBinPatterns)})
		}
		r.Learned = r.Binaries != nil && d.Chance(25)
		for range 1 + d.IntN(3) {
			r.Endpoints = append(r.Endpoints, d.endpoint())
		}
		p.Network["r"+strconv.Itoa(9-i)] = r
	}
	policytest.Settle(p)
	return p
}

// connection makes a connection, most of the time one that an endpoint names.
func (d oracleDice) connection(p *policy.Policy) decision.Action {
	r := decision.Action{Binary: pick(d, oracleBinaries), Host: pick(d, oracleHosts), Port: []uint16{443, 443, 80, 8080, 6443}[d.IntN(5)], Protocol: d.One("", "", "", "", "tcp", "udp")}
	keys := slices.Sorted(maps.Keys(p.Network))
	if len(keys) == 0 || d.Chance(20) {
		return r
	}
	rule := p.Network[pick(d, keys)]
	e := pick(d, rule.Endpoints)
	r.Port, r.Protocol = pick(d, e.PortList()), d.One("", "tcp")
	if e.Protocol == policy.ProtocolUDP {
		r.Protocol = e.Protocol
	}
	hosts := slices.DeleteFunc(slices.Clone(oracleHosts), func(host string) bool { return e.Host != "" && !hostIs(e.Host, host) })
	if len(hosts) > 0 {
		r.Host = pick(d, hosts)
	}
	binaries := slices.DeleteFunc(slices.Clone(oracleBinaries), func(path string) bool { return !binaryIs(rule, &decision.Action{Binary: path}) })
	if len(binaries) > 0 {
		r.Binary = pick(d, binaries)
	}
	return r
}

// request returns also the paths that servers read in its target.
func (d oracleDice) request(p *policy.Policy) (r decision.Action, readings []string, query map[string][]string) {
	r = d.connection(p)
	for range d.IntN(3) {
		r.Ancestors = append(r.Ancestors, pick(d, oracleBinaries))
	}
	switch d.IntN(6) {
	case 0:
		r.Host = strings.ToUpper(r.Host)
	case 1:
		r.Host += "."
	case 2:
		if strings.Contains(r.Host, ":") {
			r.Host = "[" + r.Host + "]"
		}
	}
	if d.Chance(30) {
		for range 1 + d.IntN(2) {
			r.ResolvedIPs = append(r.ResolvedIPs, pick(d, oracleIPs))
		}
	}
	if r.Protocol == "udp" || d.Chance(20) {
		return r, []string{""}, nil
	}
	plain := pick(d, oraclePaths[:len(oraclePaths)-1])
	written := plain
	readings = []string{plain}
	switch d.IntN(8) { // other ways to write the same
	case 0:
		written = strings.ReplaceAll(written, "/v", "/%76")
	case 1:
		written = "/x/.." + written
		readings = append(readings, written)
	case 2:
		written = "/." + written + ";p=1"
		readings = append(readings, written, "/."+plain, plain+";p=1")
	case 3:
		written = "https://elsewhere.example" + written
	case 4:
		written = "/" + written
		readings = append(readings, written)
	}
	raw := pick(d, oracleQueries)
	query = map[string][]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		if key, value, _ := strings.Cut(pair, "="); key != "" {
			query[key] = append(query[key], value)
		}
	}
	if raw != "" {
		written += "?" + raw
	}
	r.HTTP = &decision.RequestLine{Method: d.One("GET", "HEAD", "POST", "PUT", "DELETE", "get", "OPTIONS", "PURGE"), Target: written}
	return r, readings, query
}

func checkOracle(t *testing.T, seed uint64, counts map[string]int) {
	t.Helper()
	d := oracleDice{policytest.Dice{Rand: rand.New(rand.NewPCG(seed, 3))}}
	p := d.policy()
	if err := p.Validate(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	// As the file says it, not as it was made.
	p = policytest.MustParse(t, policytest.Text(t, p))
	e, err := engine.Compile(p, engine.Options{})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	for range 60 {
		r, readings, query := d.request(p)
		permissive := d.Chance(30)
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		evaluation, err := decision.Snapshot{Effective: e, Permissive: permissive}.Evaluate(r)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, line, err)
		}
		got := evaluation.Answer
		if (got.Reason == "") != (got.Decision == "allow") {
			t.Errorf("seed %d: %s: a reason and an allowance exclude each other: %+v", seed, line, got)
		}
		o := oracle{p, permissive}
		want := o.decide(&r, readings[0], query)
		for _, path := range readings[1:] { // the strictest holds
			if other := o.decide(&r, path, query); other.Decision == "deny" || want.Decision == "allow" {
				want = other
			}
		}
		want.Reason = got.Reason
		if got != want {
			t.Fatalf("seed %d: %s (permissive %v):\n got %+v\nwant %+v\n%s", seed, line, permissive, got, want, policytest.Text(t, p))
		}
		counts[fmt.Sprint(got.Decision, " ", got.Layer)]++
	}
}

// The engine decides like the oracle.
func TestEvaluateLikeTheOracle(t *testing.T) {
	counts := map[string]int{}
	n := policytest.Seeds(200)
	for seed := range n {
		checkOracle(t, seed, counts)
	}
	t.Log(counts)
	for _, outcome := range []string{"allow l4", "allow l7", "audit l4", "audit l7", "deny l4", "deny l7", "deny ssrf"} {
		if uint64(counts[outcome]) < n {
			t.Errorf("%d of %s: the test says too little", counts[outcome], outcome)
		}
	}
}

func FuzzEvaluateLikeTheOracle(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { checkOracle(t, seed, map[string]int{}) })
}
