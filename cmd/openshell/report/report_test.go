// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

var now = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func at(minutes int) *time.Time {
	t := now.Add(time.Duration(minutes) * time.Minute)
	return &t
}

func proposal(id, status, binary, host string, rules ...policy.L7Match) learn.Proposal {
	e := policy.Endpoint{Host: host, Ports: []uint16{443}}
	for _, m := range rules {
		e.Protocol, e.Enforcement = policy.ProtocolREST, policy.EnforcementEnforce
		e.Rules = append(e.Rules, policy.L7Allow{Allow: m})
	}
	name := "rule_" + id[2:]
	return learn.Proposal{ID: id, Policy: "agent", Kind: learn.KindNetwork, Status: status, RuleName: name, Confidence: 0.65, Binary: binary,
		Edit:       learn.Edit{Rule: &policy.Rule{Name: name, Endpoints: []policy.Endpoint{e}, Binaries: []policy.Binary{{Path: binary}}}},
		Evidence:   learn.ProposalEvidence{Hits: 3, Reasons: map[string]int{"endpoint " + host + " is not allowed": 3}},
		Provenance: learn.Provenance{Mode: learn.ModePermissive, Runs: []learn.RunEvidence{{Run: "r1", Image: "alpine:3", Hits: 3, FirstSeen: *at(-50), LastSeen: *at(-40)}}}}
}

func sample() *Data {
	approved := proposal("p-00000001", learn.StatusApproved, "/usr/bin/curl", "api.example", policy.L7Match{Method: "GET", Path: "/a"}, policy.L7Match{Method: "DELETE", Path: "/b"})
	approved.Tightened = &learn.Edit{Rule: approved.Rule.Clone()}
	approved.Tightened.Rule.Endpoints[0].Rules = approved.Rule.Endpoints[0].Rules[:1]
	approved.DecidedAt, approved.DecidedBy = at(-20), "alice"
	rejected := proposal("p-00000002", learn.StatusRejected, "/usr/bin/nc", "evil.example")
	rejected.DecidedAt, rejected.DecidedBy, rejected.RejectionReason = at(-10), "bob", "no business there"
	rejected.SecurityNotes = []string{"Mind the gap."}
	files := learn.Proposal{ID: "p-00000003", Kind: learn.KindFilesystem, Status: learn.StatusPending, RuleName: "files_data_00000003", Rationale: "Allow to read /data/in.",
		Edit:     learn.Edit{Filesystem: &policy.Filesystem{ReadOnly: []string{"/data/in"}}},
		Evidence: learn.ProposalEvidence{Tree: "/data", Hits: 7, Files: []learn.FileUse{{Path: "/data/in", Count: 7, Binaries: []string{"/usr/bin/cat"}}}}}
	base := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{ReadWrite: []string{"/work"}}, Network: map[string]*policy.Rule{
		"pypi": {Endpoints: []policy.Endpoint{{Host: "pypi.org", Port: 443}}}}}
	learned := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{approved.RuleName: approved.Tightened.Rule}}
	return &Data{Policy: "agent", Base: base, Origin: "/etc/agent.yaml", Learned: learned, Effective: policy.Merge(base, learned), Now: now,
		Proposals: []learn.Proposal{files, approved, rejected},
		Runs: []learn.RunRecord{{Run: "r1", Sandbox: "s1", Image: "alpine:3", Mode: learn.ModePermissive, TTL: "1h", Started: *at(-60), Ended: at(-30), Denials: 13, Proposals: 3, Lost: 2,
			Notes: []learn.NoteCount{{Kind: learn.NoteAddress, Count: 4, Samples: []string{"169.254.169.254:80"}}}}},
		Running: []Sandbox{{ID: "s2", Permissive: true, Deadline: *at(30)}, {ID: "s3"}}}
}

func render(t *testing.T, d *Data) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// visible is the page's text, with one space between words; it checks that elements are closed.
func visible(t *testing.T, page string) string {
	t.Helper()
	var text []string
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			if z.Err() != io.EOF || len(open) != 0 {
				t.Fatalf("%v, open: %q", z.Err(), open)
			}
			return strings.Join(strings.Fields(strings.Join(text, " ")), " ")
		case html.TextToken:
			if n := len(open); n > 0 && open[n-1] != "script" && open[n-1] != "style" {
				text = append(text, html.UnescapeString(string(z.Raw())))
			}
		case html.StartTagToken:
			if name, _ := z.TagName(); !strings.Contains(" meta br input ", " "+string(name)+" ") {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if n := len(open); n == 0 || open[n-1] != string(name) {
				t.Fatalf("</%s> within %q", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

func TestReport(t *testing.T) {
	page := render(t, sample())
	text := visible(t, page)
	for _, want := range []string{
		"Made by openshell at 2026-08-01T12:00:00Z. The base is /etc/agent.yaml.",
		"1 pending 1 approved 1 rejected 0 superseded 1 permissive runs 13 denials that were let through 2 sandboxes running",
		"Sandbox s2 runs permissively: what the policy denies is logged and allowed, until 2026-08-01T12:30:00Z.",
		"1 permissive run is on record, of 1 image", "2 denials had no room in any proposal",
		"any program pypi.org:443 1 any content base",
		"/usr/bin/curl api.example:443 2 DELETE /b rejected GET /a approved",
		"/usr/bin/nc evil.example:443 1 any content rejected",
		"/data /in pending read 7× /usr/bin/cat", "/work read-write (base)",
		"permissive run r1 of alpine:3 begins (TTL 1h)",
		"p-00000001 is approved in part 2026-08-01T11:40:00Z by alice",
		"rejected 2026-08-01T11:50:00Z by bob: no business there", "Mind the gap.",
		"In force, as it was tightened:",
		"4 to addresses that are never reachable, or private ones that no policy opens 169.254.169.254:80",
		"network_policies: pypi:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	order := regexp.MustCompile(`run r1 of.*p-00000001 is seen first.*run r1 ends.*p-00000001 is approved.*p-00000002 is rejected`)
	if !order.MatchString(text) {
		t.Error("the timeline is not in order")
	}
	if again := render(t, sample()); again != page {
		t.Error("the same data makes another page")
	}
	for _, m := range regexp.MustCompile(`(?i)\b(?:src|href|url|action)\s*[=(]\s*"?[^#\s>]*`).FindAllString(page, -1) {
		if !strings.HasPrefix(m, `href="`) || len(m) != len(`href="`) {
			t.Errorf("the page refers to something else: %q", m)
		}
	}
}

func TestEmptyReport(t *testing.T) {
	text := visible(t, render(t, &Data{Policy: "agent", Base: policy.Default(), Effective: policy.Default(), Now: now}))
	for _, want := range []string{"The policy was enforced all the time, as far as is on record.", "Nothing is allowed, and nothing was seen.", "Nothing has happened.", "There are none."} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestHostileNames(t *testing.T) {
	const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>` + "\x1b]0;x\a\u202e"
	d := sample()
	d.Policy, d.Origin = evil, evil
	d.Runs[0].Image, d.Runs[0].Sandbox, d.Runs[0].Notes[0].Samples = evil, evil, []string{evil}
	p := &d.Proposals[2]
	p.Status, p.Rationale, p.DecidedBy, p.RejectionReason, p.SecurityNotes = evil, evil, evil, evil, []string{evil}
	p.Rule.Endpoints[0].Host, p.Rule.Binaries[0].Path, p.Evidence.Reasons = evil, "/"+evil, map[string]int{evil: 1}
	d.Proposals[0].Evidence.Files[0].Path, d.Proposals[0].Evidence.Files[0].Binaries = "/"+evil, []string{evil}
	page := render(t, d)
	for _, bad := range []string{"<script>alert", "<img", "\x1b", "\u202e", "\a"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if n := strings.Count(page, "<script>"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	visible(t, page)
}

func TestReportIsBounded(t *testing.T) {
	d := sample()
	for i := range 3000 {
		use := learn.FileUse{Path: fmt.Sprintf("/data/%d/%d", i%100, i), Count: 1}
		d.Proposals[0].Evidence.Files = append(d.Proposals[0].Evidence.Files, use)
	}
	for i := range 700 {
		var rules []policy.L7Match
		for j := range 50 {
			rules = append(rules, policy.L7Match{Method: "GET", Path: fmt.Sprintf("/%d/%d/%s", i, j, strings.Repeat("x", 100))})
		}
		d.Proposals = append(d.Proposals, proposal(fmt.Sprintf("p-%08x", i+16), learn.StatusPending, fmt.Sprintf("/usr/bin/x%d", i%400), fmt.Sprintf("h%d.example", i), rules...))
		d.Runs = append(d.Runs, learn.RunRecord{Run: fmt.Sprintf("r%d", i), Started: now})
	}
	page := render(t, d)
	if len(page) > 8<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	text := visible(t, page)
	for _, want := range []string{"and 203 more", "earlier events are left out", "more programs", "more paths", "earlier ones", "more bytes: see openshell show"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	t.Logf("%d KiB", len(page)>>10)
}
