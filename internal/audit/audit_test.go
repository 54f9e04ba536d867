// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 123456789, time.UTC)

func curl() *Process {
	return &Process{PID: 64, Path: "/usr/bin/curl", SHA256: strings.Repeat("ab", 32), Ancestors: []string{"/usr/bin/bash"}}
}

func TestShorthand(t *testing.T) {
	const when = "2026-08-01T12:00:00.123Z OCSF "
	for name, c := range map[string]struct {
		e    Event
		want string
	}{
		"denied": {
			Event{Class: ClassNetwork, Activity: "OPEN", Action: ActionDenied, Disposition: DispositionBlocked, Process: curl(),
				Host: "httpbin.org", Port: 443, Engine: "l4", Reason: "endpoint httpbin.org:443 is not allowed by any policy"},
			"NET:OPEN [MED] DENIED /usr/bin/curl(64) -> httpbin.org:443 [policy:- engine:l4] [reason:endpoint httpbin.org:443 is not allowed by any policy]",
		},
		"permissive": {
			Event{Class: ClassNetwork, Activity: "OPEN", Action: ActionAllowed, Disposition: DispositionLogged, Mode: "permissive",
				Process: curl(), Host: "httpbin.org", Port: 443, Engine: "l4", Reason: "no rule"},
			"NET:OPEN [MED] ALLOWED /usr/bin/curl(64) -> httpbin.org:443 [policy:- engine:l4 mode:permissive] [reason:no rule]",
		},
		"allowed": {
			Event{Class: ClassNetwork, Activity: "OPEN", Action: ActionAllowed, Disposition: DispositionAllowed, Process: curl(),
				IP: netip.MustParseAddr("2001:db8::1"), Port: 22, Policy: "git", Engine: "l4"},
			"NET:OPEN [INFO] ALLOWED /usr/bin/curl(64) -> [2001:db8::1]:22 [policy:git engine:l4]",
		},
		"request": {
			Event{Class: ClassHTTP, Activity: "get", Action: ActionAllowed, Process: curl(), Host: "api.github.com", Port: 443,
				HTTP: &HTTP{Method: "GET", Scheme: "https", Path: "/repos/o/r?token=secret", Status: 200}, Policy: "gh", Engine: "l7"},
			"HTTP:GET [INFO] ALLOWED /usr/bin/curl(64) -> GET https://api.github.com:443/repos/o/r 200 [policy:gh engine:l7]",
		},
		"config": {
			Event{Class: ClassConfig, Activity: "PROPOSED", Severity: SeverityLow, Message: "proposal p-1 [policy:x]"},
			`CONFIG:PROPOSED [LOW] proposal p-1 \x5bpolicy:x\x5d`,
		},
		"hostile": {
			Event{Class: ClassNetwork, Activity: "OPEN", Action: ActionDenied, Process: &Process{PID: 1, Path: "/x\n\x1b[2J -> ok:1 [policy:a"},
				Host: "evil host\xff\u202e", Port: 1, Engine: "l4", Reason: "a\r\nb\u2028c\\d"},
			`NET:OPEN [MED] DENIED /x\x0a\x1b[2J\x20->\x20ok:1\x20[policy:a(1) -> evil\x20host\xff\u{202e}:1 [policy:- engine:l4] [reason:a\x0d\x0ab\u{2028}c\\d]`,
		},
	} {
		c.e.Time = noon
		if got := Shorthand(c.e); got != when+c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, when+c.want)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain text", 64, "plain text"},
		{"naïve ☃", 64, "naïve ☃"},
		{`back\slash`, 64, `back\\slash`},
		{"\x00\t\x7f", 64, `\x00\x09\x7f`},
		{"\u009b31m", 64, `\u{9b}31m`},
		{"a\u00a0b\u200bc", 64, `a\u{a0}b\u{200b}c`},
		{"\xc3\x28\ufffd", 64, `\xc3(` + "\ufffd"},
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "0123456…"},
		{"012345\n", 9, "012345…"},
		{"é" + strings.Repeat("x", 9), 10, "éxxxxx…"},
	} {
		if got := Escape(c.in, c.limit); got != c.want {
			t.Errorf("Escape(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", `a\b`, "\x1b[31m\r\n", "\xff\xfe", "\u202e\u2028", strings.Repeat("é", 100)} {
		f.Add(s, 64)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(limit%1000, len(ellipsis))
		got := Escape(s, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Fatalf("Escape(%q, %d) = %q", s, limit, got)
		}
		for _, r := range got {
			if r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r)) {
				t.Fatalf("Escape(%q) = %q: has %U", s, got, r)
			}
		}
		if whole := Escape(s, 20*len(s)+10); unescape(t, whole) != s {
			t.Fatalf("Escape(%q) = %q: reads as %q", s, whole, unescape(t, whole))
		}
	})
}

// unescape inverts Escape.
func unescape(t *testing.T, s string) string {
	var b strings.Builder
	for s != "" {
		switch {
		case strings.HasPrefix(s, `\\`):
			b.WriteByte('\\')
			s = s[2:]
		case strings.HasPrefix(s, `\x`):
			b.WriteByte(byte(parseHex(t, s[2:4])))
			s = s[4:]
		case strings.HasPrefix(s, `\u{`):
			code, rest, _ := strings.Cut(s[3:], "}")
			b.WriteRune(parseHex(t, code))
			s = rest
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String()
}

func parseHex(t *testing.T, s string) rune {
	var n rune
	for _, c := range s {
		i := strings.IndexRune("0123456789abcdef", c)
		if i < 0 {
			t.Fatalf("%q is not hexadecimal", s)
		}
		n = n*16 + rune(i)
	}
	return n
}

// Whatever the workload's strings are, they give one bounded line whose fields are the
// event's, and one JSON object.
func FuzzFormats(f *testing.F) {
	f.Add("/usr/bin/curl", "example.com", "GET", "/a?b", "no rule", "hello")
	f.Add("/x [policy:y engine:z]", "a\nb", "\x1b", "/\xff", "] [reason:x", "[policy:q engine:r]")
	f.Fuzz(func(t *testing.T, binary, host, method, path, reason, message string) {
		e := Event{Time: noon, Class: ClassHTTP, Activity: method, Action: ActionDenied, Process: &Process{PID: 1, Path: binary},
			Host: host, Port: 443, HTTP: &HTTP{Method: method, Scheme: "https", Path: path},
			Policy: "pol", Engine: "l7", Reason: reason, Message: message}
		line := Shorthand(e)
		if strings.ContainsAny(line, "\n\r\x1b") || !utf8.ValidString(line) || len(line) > 4096 {
			t.Fatalf("line %q", line)
		}
		const fields = " [policy:pol engine:l7]"
		head, tail, ok := strings.Cut(line, fields)
		if !ok || strings.Contains(head, " [policy:") {
			t.Fatalf("another field comes before the real one: %q", line)
		}
		if want := reason != ""; strings.HasPrefix(tail, " [reason:") != want {
			t.Fatalf("reason of %q", line)
		}
		data, err := MarshalOCSF(e)
		if err != nil || !json.Valid(data) || strings.ContainsAny(string(data), "\n\r\x1b") {
			t.Fatalf("%v: %q", err, data)
		}
	})
}

func TestMarshalOCSF(t *testing.T) {
	marshal := func(e Event) map[string]any {
		t.Helper()
		e.Time = noon
		data, err := MarshalOCSF(e)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		return m
	}
	for name, c := range map[string]struct {
		e    Event
		want map[string]any
	}{
		"denied connection": {
			Event{Sandbox: "s1", Container: "c1", Mode: "enforcing", Class: ClassNetwork, Activity: "OPEN", Action: ActionDenied,
				Disposition: DispositionBlocked, Process: curl(), Host: "example.com", IP: netip.MustParseAddr("192.0.2.1"), Port: 443, Engine: "l4", Reason: "why"},
			map[string]any{
				"class_uid": 4001.0, "class_name": "Network Activity", "category_uid": 4.0, "activity_id": 1.0, "activity_name": "Open",
				"type_uid": 400101.0, "type_name": "Network Activity: Open", "severity_id": 3.0, "severity": "Medium", "status_id": 2.0, "status": "Failure",
				"status_detail": "why", "time": 1785585600123.0, "action_id": 2.0, "action": "Denied", "disposition_id": 2.0, "disposition": "Blocked",
				"dst_endpoint.domain": "example.com", "dst_endpoint.ip": "192.0.2.1", "dst_endpoint.port": 443.0,
				"actor.process.pid": 64.0, "actor.process.name": "curl", "actor.process.file.path": "/usr/bin/curl",
				"firewall_rule.name": "-", "firewall_rule.type": "l4", "container.uid": "c1", "unmapped.sandbox": "s1", "unmapped.mode": "enforcing",
				"metadata.version": "1.8.0", "metadata.product.name": "openshell",
			},
		},
		"permissive request": {
			Event{Mode: "permissive", Class: ClassHTTP, Activity: "POST", Action: ActionAllowed, Disposition: DispositionLogged, Host: "h", Port: 80,
				HTTP: &HTTP{Method: "POST", Scheme: "http", Path: "/a?secret", Status: 201}, Reason: "would be denied"},
			map[string]any{
				"class_uid": 4002.0, "activity_id": 6.0, "activity_name": "Post", "type_uid": 400206.0, "severity_id": 3.0, "status_id": 1.0,
				"action_id": 1.0, "disposition_id": 17.0, "disposition": "Logged", "status_detail": "would be denied",
				"http_request.http_method": "POST", "http_request.url.path": "/a", "http_request.url.hostname": "h", "http_response.code": 201.0,
				"unmapped.mode": "permissive",
			},
		},
		"name": {
			Event{Class: ClassDNS, Activity: "QUERY", Action: ActionAllowed, Host: "example.org"},
			map[string]any{"type_uid": 400301.0, "query.hostname": "example.org", "severity_id": 1.0},
		},
		"own activity": {
			Event{Class: ClassConfig, Activity: "PROPOSED", Sandbox: "s1", Message: "m"},
			map[string]any{"class_uid": 5019.0, "activity_id": 99.0, "activity_name": "PROPOSED", "type_uid": 501999.0, "device.uid": "s1", "message": "m"},
		},
		"finding": {
			Event{Class: ClassFinding, Activity: "CREATE", Severity: SeverityHigh, Message: "landlock is missing"},
			map[string]any{"class_uid": 2004.0, "severity_id": 4.0, "finding_info.title": "landlock is missing"},
		},
		"lifecycle": {
			Event{Class: ClassLifecycle, Activity: "START"},
			map[string]any{"type_uid": 600203.0, "app.name": "openshell", "app.version": "devel", "metadata.product.version": "devel"},
		},
	} {
		got := marshal(c.e)
		for path, want := range c.want {
			if v := lookup(got, path); v != want {
				t.Errorf("%s: %s is %v, want %v", name, path, v, want)
			}
		}
	}
}

func lookup(m map[string]any, path string) any {
	key, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return m[key]
	}
	inner, _ := m[key].(map[string]any)
	return lookup(inner, rest)
}
