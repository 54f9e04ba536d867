// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

var start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func permissiveRun(id string) Run {
	return Run{ID: id, Sandbox: "sandbox-" + id, Container: "container-" + id, Image: "alpine:3", Policy: "agent",
		Mode: ModePermissive, BasePolicySHA256: "sha256:base", TTL: "1h", Started: start}
}

// connect, raw and get are denials of curl to api.github.com:443.
func connect() Denial {
	return Denial{Time: start, Permissive: true, Layer: "l4", Host: "api.github.com", Port: 443, Binary: "/usr/bin/curl", SHA256: "aa",
		Ancestors: []string{"/bin/sh"}, Reason: "endpoint api.github.com:443 is not allowed by any policy", IPs: []netip.Addr{netip.MustParseAddr("140.82.112.6")}}
}

func raw() Denial {
	d := connect()
	d.Kind, d.TLS = KindRaw, "none"
	return d
}

func request1(method, path string) Denial {
	d := connect()
	d.Kind, d.TLS, d.Method, d.Path, d.Status = KindHTTP, "terminated", method, path, 200
	return d
}

func with(d Denial, change func(*Denial)) Denial {
	change(&d)
	return d
}

func proposeAll(denials ...Denial) []Proposal {
	g := NewGatherer("agent")
	for _, d := range denials {
		g.Observe(permissiveRun("r1"), d)
	}
	return g.Proposals()
}

func proposeOne(t *testing.T, denials ...Denial) Proposal {
	t.Helper()
	all := proposeAll(denials...)
	if len(all) != 1 {
		t.Fatalf("%d proposals, want 1: %+v", len(all), all)
	}
	return all[0]
}

func TestBuildRule(t *testing.T) {
	skip := with(connect(), func(d *Denial) { d.TLSSkip = true })
	for name, c := range map[string]struct {
		denials []Denial
		want    policy.Endpoint
		notes   []string
	}{
		"connections": {[]Denial{connect(), connect()}, policy.Endpoint{}, nil},
		"raw":         {[]Denial{connect(), raw()}, policy.Endpoint{}, nil},
		"udp":         {[]Denial{with(connect(), func(d *Denial) { d.Protocol = "udp" })}, policy.Endpoint{Protocol: "udp"}, nil},
		"requests": {
			[]Denial{connect(), request1("get", "/repos/o/r"), request1("POST", "/repos/o/r/issues/7"), request1("GET", "/a")},
			policy.Endpoint{Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{
				{Allow: policy.L7Match{Method: "GET", Path: "/a"}},
				{Allow: policy.L7Match{Method: "GET", Path: "/repos/o/r"}},
				{Allow: policy.L7Match{Method: "POST", Path: "/repos/o/r/issues/*"}},
			}}, nil,
		},
		"encoded slash": {
			[]Denial{with(request1("GET", "/@scope%2Fname"), func(d *Denial) {
				d.Missing = []policy.L7Match{{Method: "GET", Path: "/@scope%2Fname"}, {Method: "GET", Path: "/@scope/name"}}
			})},
			policy.Endpoint{Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{
				{Allow: policy.L7Match{Method: "GET", Path: "/@scope%2Fname"}}, {Allow: policy.L7Match{Method: "GET", Path: "/@scope/name"}}}}, nil,
		},
		"raw and requests": {[]Denial{request1("GET", "/a"), raw()}, policy.Endpoint{}, []string{noteMixed}},
		"pinned":           {[]Denial{skip}, policy.Endpoint{TLS: "skip"}, []string{noteTLSSkip}},
		"pinned later":     {[]Denial{request1("GET", "/a"), skip}, policy.Endpoint{TLS: "skip"}, []string{noteTLSSkip, noteMixed}},
		"some literal stars": {
			[]Denial{request1("GET", "/a/*"), request1("*", "/b"), request1("GET", "/c")},
			policy.Endpoint{Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: `/a/\*`}}, {Allow: policy.L7Match{Method: "GET", Path: "/c"}}}},
			[]string{noteInexpressible},
		},
		"replaced program": {[]Denial{connect(), with(connect(), func(d *Denial) { d.SHA256 = "bb" })}, policy.Endpoint{}, []string{noteReplaced}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Host, c.want.Ports = "api.github.com", []uint16{443}
			p := proposeOne(t, c.denials...)
			if got := p.Rule.Endpoints[0]; !reflect.DeepEqual(got, c.want) {
				t.Errorf("endpoint %+v\nwant %+v", got, c.want)
			}
			if want := []policy.Binary{{Path: "/usr/bin/curl"}}; !slices.Equal(p.Rule.Binaries, want) {
				t.Errorf("binaries %v", p.Rule.Binaries)
			}
			if !slices.Equal(p.SecurityNotes, c.notes) {
				t.Errorf("notes %q, want %q", p.SecurityNotes, c.notes)
			}
			if p.Rule.Name != p.RuleName || p.Digest != policy.RuleDigest(p.Rule) {
				t.Errorf("rule %q of %q, digest %s", p.Rule.Name, p.RuleName, p.Digest)
			}
		})
	}
}

// The rule that was learned allows what was seen, and little else.
func TestRuleAllowsWhatWasSeen(t *testing.T) {
	p := proposeOne(t, request1("GET", "/repos/o/r"), request1("POST", "/repos/o/r/issues/7"))
	compiled, err := engine.Compile(&policy.Policy{Version: 1, Network: map[string]*policy.Rule{p.RuleName: p.Rule}}, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := compiled.Connect(engine.Connection{Binary: "/usr/bin/curl", Host: "api.github.com", Port: 443})
	for _, c := range []struct {
		method, path string
		want         engine.Decision
	}{
		{"GET", "/repos/o/r", engine.Allow}, {"POST", "/repos/o/r/issues/8", engine.Allow},
		{"DELETE", "/repos/o/r", engine.Deny}, {"GET", "/repos/o/r/issues/7", engine.Deny}, {"POST", "/repos/o/r/issues/7/x", engine.Deny},
	} {
		if v := m.Request(engine.Request{Method: c.method, Path: c.path}); v.Decision != c.want {
			t.Errorf("%s %s: %v, want %v", c.method, c.path, v.Decision, c.want)
		}
	}
	if m := compiled.Connect(engine.Connection{Binary: "/usr/bin/wget", Host: "api.github.com", Port: 443}); m.Allowed {
		t.Error("another program is allowed")
	}
}

func TestNeverProposed(t *testing.T) {
	for name, change := range map[string]func(*Denial){
		"loopback":           func(d *Denial) { d.Host = "127.0.0.1" },
		"loopback v6":        func(d *Denial) { d.Host = "::1" },
		"mapped loopback":    func(d *Denial) { d.Host = "::ffff:127.0.0.1" },
		"localhost":          func(d *Denial) { d.Host = "LocalHost." },
		"below localhost":    func(d *Denial) { d.Host = "x.localhost" },
		"metadata address":   func(d *Denial) { d.Host = "169.254.169.254" },
		"metadata name":      func(d *Denial) { d.Host = "metadata.google.internal" },
		"other metadata":     func(d *Denial) { d.Host = "metadata.goog." },
		"link-local":         func(d *Denial) { d.Host = "fe80::1" },
		"zone":               func(d *Denial) { d.Host = "fe80::1%eth0" },
		"multicast":          func(d *Denial) { d.Host = "224.0.0.1" },
		"control plane":      func(d *Denial) { d.Host, d.Port = "10.0.0.1", 6443 },
		"wildcard host":      func(d *Denial) { d.Host = "*.example.com" },
		"host with newline":  func(d *Denial) { d.Host = "a\nb.example.com" },
		"host with escape":   func(d *Denial) { d.Host = "\x1b[2J.example.com" },
		"host with braces":   func(d *Denial) { d.Host = "{a,b}.example.com" },
		"invalid UTF-8":      func(d *Denial) { d.Host = "\xff.example.com" },
		"empty label":        func(d *Denial) { d.Host = "a..example.com" },
		"long host":          func(d *Denial) { d.Host = strings.Repeat("a.", 200) + "com" },
		"no host":            func(d *Denial) { d.Host = "" },
		"no port":            func(d *Denial) { d.Port = 0 },
		"unknown program":    func(d *Denial) { d.Binary = "" },
		"relative program":   func(d *Denial) { d.Binary = "curl" },
		"wildcard program":   func(d *Denial) { d.Binary = "/tmp/*" },
		"program with break": func(d *Denial) { d.Binary = "/tmp/a\nb" },
		"program not UTF-8":  func(d *Denial) { d.Binary = "/tmp/\xff" },
		"method is a star":   func(d *Denial) { d.Kind, d.Method, d.Path = KindHTTP, "*", "/a" },
		"no method":          func(d *Denial) { d.Kind, d.Method, d.Path = KindHTTP, "", "/a" },
	} {
		if got := proposeAll(with(connect(), change)); len(got) != 0 {
			t.Errorf("%s: proposed %+v", name, got[0].Rule)
		}
	}
}

func TestIdentity(t *testing.T) {
	base := proposeOne(t, connect())
	if want := `^p-[0-9a-f]{8}$`; !matches(want, base.ID) {
		t.Errorf("id %q", base.ID)
	}
	if want := "api_github_com_443_curl_" + base.ID[2:]; base.RuleName != want {
		t.Errorf("rule name %q, want %q", base.RuleName, want)
	}
	same := []Denial{
		with(connect(), func(d *Denial) { d.Host = "API.GitHub.com." }),
		with(connect(), func(d *Denial) { d.SHA256, d.Ancestors, d.Permissive = "bb", nil, false }),
		request1("GET", "/x"), raw(),
	}
	for _, d := range same {
		if p := proposeOne(t, d); p.ID != base.ID || p.RuleName != base.RuleName {
			t.Errorf("%+v has another id", d)
		}
	}
	ids, names := map[string]bool{base.ID: true}, map[string]bool{base.RuleName: true}
	other := []Denial{
		with(connect(), func(d *Denial) { d.Host = "api-github.com" }),
		with(connect(), func(d *Denial) { d.Host = "api.github_com.com" }),
		with(connect(), func(d *Denial) { d.Port = 80 }),
		with(connect(), func(d *Denial) { d.Binary = "/usr/local/bin/curl" }),
		with(connect(), func(d *Denial) { d.Protocol = "udp" }),
	}
	for _, d := range other {
		p := proposeOne(t, d)
		if ids[p.ID] || names[p.RuleName] {
			t.Errorf("%+v shares id %s or name %s", d, p.ID, p.RuleName)
		}
		ids[p.ID], names[p.RuleName] = true, true
	}
}

func TestExplanations(t *testing.T) {
	many := slices.Repeat([]Denial{connect()}, 10)
	for name, c := range map[string]struct {
		denials    []Denial
		confidence float64
		rationale  string
		note       string
	}{
		"once":     {[]Denial{connect()}, 0.65, "Allow curl to connect to api.github.com:443 (HTTPS).", ""},
		"thrice":   {many[:3], 0.75, "Allow curl to connect to api.github.com:443 (HTTPS).", ""},
		"often":    {many, 0.85, "Allow curl to connect to api.github.com:443 (HTTPS).", ""},
		"ssh":      {[]Denial{with(raw(), func(d *Denial) { d.Port = 22 })}, 0.5, "Allow curl to connect to api.github.com:22 (SSH).", ""},
		"requests": {[]Denial{request1("GET", "/b"), request1("PUT", "/a")}, 0.65, "Allow curl to connect to api.github.com:443 (HTTPS) with L7 inspection. Allowed paths: PUT /a, GET /b.", ""},
		"database": {[]Denial{with(raw(), func(d *Denial) { d.Port = 5432 })}, 0.65, "Allow curl to connect to api.github.com:5432 (PostgreSQL).", "Port 5432 is a database or message service (PostgreSQL)."},
		"high":     {[]Denial{with(raw(), func(d *Denial) { d.Port = 50000 })}, 0.5, "Allow curl to connect to api.github.com:50000.", "Port 50000 is in the ephemeral range - this may be a temporary service."},
		"internal": {[]Denial{with(connect(), func(d *Denial) { d.IPs = []netip.Addr{netip.MustParseAddr("10.0.0.1")} })}, 0.65,
			"Allow curl to connect to api.github.com:443 (HTTPS).", "Destination 'api.github.com' appears to be an internal/private address. A learned rule does not open it: that needs allowed_ips in the base policy, or addresses.trusted in the configuration."},
	} {
		p := proposeOne(t, c.denials...)
		if p.Confidence != c.confidence || p.Rationale != c.rationale {
			t.Errorf("%s: %v %q, want %v %q", name, p.Confidence, p.Rationale, c.confidence, c.rationale)
		}
		if c.note != "" && !slices.Equal(p.SecurityNotes, []string{c.note}) || c.note == "" && len(p.SecurityNotes) != 0 {
			t.Errorf("%s: notes %q", name, p.SecurityNotes)
		}
	}
}

// Nothing that may be a secret gets into a proposal, and what was seen is fit to show.
func TestNothingSecretIsKept(t *testing.T) {
	const secret = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
	p := proposeOne(t,
		with(request1("POST", "/bot"+secret+"/sendMessage"), func(d *Denial) { d.Reason = "POST /bot" + secret + "/sendMessage is not allowed" }),
		request1("GET", "/a?token="+secret), request1("GET", "/\x1b[2J\n\xff"),
		with(connect(), func(d *Denial) { d.Ancestors, d.Reason = []string{"/\x1b\n\xff"}, "a\n\x1bb" }),
	)
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"AAHdqTcv", "token=", `\n`, "\\u001b", "\ufffd"} {
		if strings.Contains(string(data), bad) {
			t.Errorf("the proposal has %q: %s", bad, data)
		}
	}
	if p.Evidence.Reasons["POST /*/sendMessage is not allowed"] != 1 || p.Evidence.Reasons[`a\x0a\x1bb`] != 1 {
		t.Errorf("reasons %v", p.Evidence.Reasons)
	}
}

// However denials are split into runs, flushes and containers, and whatever comes first, the
// proposal is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	var denials []Denial
	for i := range 300 {
		d := request1([]string{"GET", "POST", "HEAD"}[i%3], "/p"+string(rune('a'+i%26))+"/"+string(rune('a'+i/26)))
		d.Time = start.Add(time.Duration(i) * time.Second)
		d.Status = 200 + i%2*204
		d.Ancestors = []string{"/bin/" + string(rune('a'+i%7))}
		d.Reason = "reason " + string(rune('a'+i%26))
		d.IPs = []netip.Addr{netip.AddrFrom4([4]byte{140, 82, 112, byte(i)})}
		d.Permissive = i%5 == 0
		if i%50 == 0 {
			d.Kind = KindConnect
		}
		denials = append(denials, d)
	}
	runOf := func(d Denial) Run { return permissiveRun("r" + string(rune('0'+d.Time.Minute()%3))) }
	build := func(portions int) Proposal {
		var p Proposal
		for chunk := range slices.Chunk(denials, (len(denials)+portions-1)/portions) {
			e := newEvidence("agent", must(targetOf(denials[0])))
			for _, d := range chunk {
				e.add(runOf(d), d)
			}
			if p.ID == "" {
				p, _ = newProposal(e)
				continue
			}
			data, err := json.Marshal(p) // as if it had been stored
			if err != nil {
				t.Fatal(err)
			}
			p = Proposal{}
			if err := json.Unmarshal(data, &p); err != nil {
				t.Fatal(err)
			}
			if _, err := p.grow(e); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	want := build(1)
	for portions := range 6 {
		rand.Shuffle(len(denials), func(i, j int) { denials[i], denials[j] = denials[j], denials[i] })
		if got := build(portions + 1); !reflect.DeepEqual(got, want) {
			t.Fatalf("in %d portions:\n got %+v\nwant %+v", portions+1, got, want)
		}
	}
	if want.Provenance.Mode != ModePermissive || want.Evidence.Hits != 300 || len(want.Provenance.Runs) != 3 ||
		len(want.Evidence.Samples) != maxSamples || len(want.Evidence.Reasons) != maxReasons || len(want.Evidence.ResolvedIPs) != maxIPs {
		t.Errorf("%+v", want)
	}
}

func must(t target, ok bool) target {
	if !ok {
		panic("not a target")
	}
	return t
}

// An IPv6 address is the same with brackets around it.
func TestTargetsOfAddresses(t *testing.T) {
	want, ok := targetOf(with(connect(), func(d *Denial) { d.Host = "2606:4700::1111" }))
	if !ok {
		t.Fatal("an address has no target")
	}
	for _, host := range []string{"[2606:4700::1111]", "[2606:4700:0::1111]", "2606:4700::1111"} {
		if got, ok := targetOf(with(connect(), func(d *Denial) { d.Host = host })); !ok || got != want {
			t.Errorf("%s: %+v, %v", host, got, ok)
		}
	}
	if _, ok := targetOf(with(connect(), func(d *Denial) { d.Host = "[api.github.com]" })); ok {
		t.Error("a name in brackets is one")
	}
}
