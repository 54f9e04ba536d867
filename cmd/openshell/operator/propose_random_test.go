// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/httptarget"
)

// logDice makes logs of a small world, in which much happens more than once.
type logDice struct{ *rand.Rand }

func (d logDice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d logDice) chance(percent int) bool { return d.IntN(100) < percent }

func (d logDice) segment() string {
	switch d.IntN(10) {
	case 0:
		return fmt.Sprint(d.IntN(100000))
	case 1:
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", d.Uint32(), d.IntN(1<<16), d.IntN(1<<12), d.IntN(1<<12), d.Uint64N(1<<48))
	case 2:
		return fmt.Sprintf("%040x", d.Uint64())
	case 3:
		return d.one("%2A", "%7Bx%7D", "%5Bid%5D", "a%3Fb", "%25", "%C3%A9", "a,b", "x*y", "!", "a+b", "~u", "%5C", ";p=1", "v1;x", "%2e%2e", ".", "..", "", "*", "**")
	default:
		return d.one("repos", "users", "v1", "v2", "a", "b", "items", "left-pad", "index.json", "x.tar.gz")
	}
}

func (d logDice) target() string {
	var b strings.Builder
	for range 1 + d.IntN(4) {
		b.WriteString("/" + d.segment())
	}
	return b.String() + d.one("", "", "", "/", "?q=1", "?a=b&c=%2F", "?")
}

func (d logDice) line() string {
	if d.chance(15) {
		return fmt.Sprintf(`{"binary":%q,"file":{"path":%q,"access":%q}}`, d.one("/usr/bin/make", "/bin/sh"),
			d.one("/data/", "/srv/x/", "/home/u/.cache/", "/var/lib/app/", "/opt/tool/")+d.one("a", "b/c", "d/e/f.txt", "*.log", "tmp.Ab12Cd", "{x}"), d.one("read", "write", "execute"))
	}
	r := decision.Action{
		Binary: d.one("/usr/bin/curl", "/usr/bin/git", "/usr/bin/node", "/opt/x y/bin/tool", "/usr/local/bin/python3.11"),
		Host: d.one("api.example.com", "API.Example.COM.", "git.example.com", "1.pool.example.com", "2.pool.example.com", "3.pool.example.com", "single",
			"45.64.45.1", "2606:4700::1111", "[2606:4700::1111]", "::ffff:45.64.45.1", "xn--bcher-kva.example", "a_b.example.net"),
		Port: []uint16{443, 443, 443, 80, 8080, 5432}[d.IntN(6)],
	}
	if d.chance(30) {
		r.Ancestors = []string{d.one("/bin/sh", "/usr/bin/make")}
	}
	if d.chance(30) && strings.Trim(strings.ToLower(r.Host), "0123456789.:[]abcdef") != "" {
		r.ResolvedIPs = []string{d.one("45.64.45.7", "2606:4700::7", "10.0.0.1", "127.0.0.1")}
	}
	switch d.IntN(12) {
	case 0:
		r.Protocol = d.one("tcp", "udp")
	case 1:
		r.Protocol = "tcp"
	case 2:
		r.HTTP = &decision.RequestLine{Method: "POST", Target: "/graphql"}
		r.GraphQL = json.RawMessage(fmt.Sprintf(`{"query":"%s %s{%s}"}`, d.one("query", "mutation"), d.one("", "N", "M"), d.one("a", "b", "a b", "x:c")))
	case 3:
		call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q}`, d.one("a", "b", "ping", "tools/list"))
		if d.chance(50) {
			call = fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q}}`, d.one("t", "u", "a b"))
		}
		r.HTTP = &decision.RequestLine{Method: "POST", Target: d.one("/rpc", "/mcp")}
		r.JSONRPC = json.RawMessage(d.one(call, "["+call+"]"))
	case 4:
		text := d.one("hello", `{"type":"subscribe","id":"1","payload":{"query":"subscription{s}"}}`)
		r.HTTP = &decision.RequestLine{Method: "GET", Target: d.one("/ws", "/gws")}
		r.WebSocketText = &text
	default:
		r.HTTP = &decision.RequestLine{Method: d.one("GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "get", "PROPFIND"), Target: d.target()}
	}
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	line := string(data)
	if d.chance(40) {
		line = strings.TrimSuffix(line, "}") + fmt.Sprintf(`,"run":%q}`, d.one("a", "b", "c"))
	}
	return line
}

// logBases are what proposals are made beside.
var logBases = []string{"", `
  api:
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}
`, `
  api:
    binaries: [{path: /usr/bin/curl}, {path: /usr/bin/node}]
    endpoints:
      - {host: "*.example.com", ports: [443, 80], path: /graphql, protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [a]}}]}
      - {host: "*.example.com", ports: [443, 80], path: /rpc, protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: a}}]}
      - {host: "*.example.com", ports: [443, 80], path: /mcp, protocol: mcp, enforcement: enforce, rules: [{allow: {method: ping}}]}
      - {host: "*.example.com", ports: [443, 80], path: /ws, protocol: websocket, enforcement: enforce, access: read-only}
      - {host: "*.example.com", ports: [443, 80], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/v1/**"}}]}
`, `
  api:
    endpoints:
      - {host: "**.example.com", port: 443, path: "/v1/**", protocol: rest, enforcement: audit, rules: [{allow: {method: GET, path: "/v1/*"}}]}
      - {host: "**.example.com", port: 443, path: "/v2/**", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/v2/*", query: {q: "1"}}}]}
  db:
    endpoints:
      - {host: git.example.com, port: 5432}
      - {host: "", port: 8080, allowed_ips: [45.64.0.0/16]}
`}

// propose makes the proposals, as the command does.
func propose(t *testing.T, base string, lines []string, asJSON bool) string {
	t.Helper()
	file := ""
	if base != "" {
		file = filepath.Join(t.TempDir(), "base.yaml")
		if err := os.WriteFile(file, []byte(base), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := newProposer(file, "agent")
	if err != nil {
		t.Fatalf("%v\n%s", err, base)
	}
	malformed, err := p.readAll(strings.NewReader(strings.Join(lines, "\n")+"\n"), io.Discard)
	if err != nil || malformed {
		t.Fatal(malformed, err)
	}
	var out bytes.Buffer
	if _, err := p.write(&out, io.Discard, asJSON, learn.Include{Truncated: true, Sensitive: true, Varying: true}); err != nil {
		t.Fatalf("%v\n%s\n%s", err, base, strings.Join(lines, "\n"))
	}
	return out.String()
}

// nobodyCanAllow reports whether a line is about what no learned rule may allow, in a reader's words:
// a private address, and what a rule of the base denies or cannot tell apart.
func nobodyCanAllow(d decision.Evaluation) bool {
	return d.Layer == "ssrf" || d.Request.Malformed || d.Message.Malformed || d.Decision == "deny"
}

func checkProposals(t *testing.T, seed uint64) (proposed int) {
	t.Helper()
	d := logDice{rand.New(rand.NewPCG(seed, 2))}
	base := ""
	if rules := logBases[d.IntN(len(logBases))]; rules != "" {
		base = "version: 1\nfilesystem_policy: {read_only: [/srv]}\nnetwork_policies:" + rules
	}
	var lines []string
	for range 1 + d.IntN(25) {
		lines = append(lines, d.line())
	}
	out := propose(t, base, lines, false)
	p, _, err := policy.Parse([]byte(out))
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, out)
	}
	approved := enforcing(t, p)
	basis := &proposer{}
	if base == "" {
		basis, err = newProposer("", "agent")
	} else {
		var parsed *policy.Policy
		if parsed, _, err = policy.Parse([]byte(base)); err == nil {
			basis.rules = enforcing(t, parsed)
			basis.rules.Permissive = true
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		var r logged
		if err := parseStrictly([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.File != nil {
			continue
		}
		before, err := basis.rules.Evaluate(r.Action)
		if err != nil {
			t.Fatal(err)
		}
		after, err := approved.Evaluate(r.Action)
		if err != nil {
			t.Fatal(err)
		}
		if !nobodyCanAllow(before) && after.Decision == "deny" {
			t.Errorf("seed %d: %s\nis %+v in permissive mode\nand %+v once all is approved\nbase: %s\nproposed:\n%s", seed, line, before.Answer, after.Answer, base, out)
		}
		if before.Decision == "audit" {
			proposed++
		}
	}

	// The order, and what is said twice, make no difference.
	shuffled := slices.Concat(lines, lines)
	d.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if again := propose(t, base, shuffled, false); again != out {
		t.Errorf("seed %d: another order makes another policy:\n%s\n%s\n%s", seed, strings.Join(lines, "\n"), out, again)
	}
	shuffled = slices.Clone(lines)
	d.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if some, others := propose(t, base, lines, true), propose(t, base, shuffled, true); some != others {
		t.Errorf("seed %d: another order makes other proposals:\n%s\n%s\n%s", seed, strings.Join(lines, "\n"), some, others)
	}
	// Nothing is left to propose.
	if again := propose(t, out, lines, false); again != out {
		t.Errorf("seed %d: the result as the base makes another policy:\n%s\n%s\n%s", seed, strings.Join(lines, "\n"), out, again)
	}
	// A half of the log first, and then the other.
	half := len(lines) / 2
	q, _, err := policy.Parse([]byte(propose(t, propose(t, base, lines[:half], false), lines[half:], false)))
	if err != nil {
		t.Fatal(err)
	}
	approved = enforcing(t, q)
	for _, line := range lines {
		var r logged
		if err := parseStrictly([]byte(line), &r); err != nil || r.File != nil {
			continue
		}
		before, _ := basis.rules.Evaluate(r.Action)
		if after, _ := approved.Evaluate(r.Action); !nobodyCanAllow(before) && after.Decision == "deny" {
			t.Errorf("seed %d: %s\nis %+v after two approvals\nbase: %s", seed, line, after.Answer, base)
		}
	}
	return proposed
}

// Whatever was denied and can be allowed is allowed by what is proposed.
func TestProposalsAreComplete(t *testing.T) {
	n := uint64(25)
	if s := os.Getenv("PROPOSE_SEEDS"); s != "" { // as many as wanted, besides what suits every day
		var err error
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	proposed := 0
	for seed := range n {
		proposed += checkProposals(t, seed)
		if t.Failed() {
			return
		}
	}
	if proposed < int(n)*3 {
		t.Errorf("%d denials in %d logs: the test says too little", proposed, n)
	}
}

// eventOf is what a sandbox logs of a request, or false for one that it would not have forwarded.
func eventOf(t *testing.T, r *logged) (string, bool) {
	t.Helper()
	e := audit.Event{
		Time: time.Unix(1767322000, 0), Sandbox: r.Run, Mode: "permissive", Class: audit.ClassNetwork, Activity: "OPEN",
		Action: audit.ActionAllowed, Disposition: audit.DispositionLogged, Process: &audit.Process{PID: 7, Path: r.Binary, Ancestors: r.Ancestors},
		Host: strings.Trim(r.Host, "[]"), Port: r.Port, Protocol: "tcp",
	}
	if r.Protocol != "" {
		e.Protocol = r.Protocol
	}
	if r.HTTP != nil {
		target, err := httptarget.Parse(r.HTTP.Method, r.HTTP.Target)
		if err != nil {
			return "", false
		}
		e.Class, e.Activity, e.HTTP = audit.ClassHTTP, r.HTTP.Method, &audit.HTTP{Method: r.HTTP.Method, Scheme: "https", Path: target.Path()}
	}
	line, err := audit.MarshalOCSF(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(line), true
}

// A log of events gives a policy that allows what the requests that they tell of do.
func TestProposalsOfEventsAreComplete(t *testing.T) {
	for seed := range uint64(40) {
		d := logDice{rand.New(rand.NewPCG(seed, 4))}
		var requests []logged
		var lines []string
		for len(lines) < 20 {
			var r logged
			if err := parseStrictly([]byte(d.line()), &r); err != nil {
				t.Fatal(err)
			}
			r.ResolvedIPs, r.GraphQL, r.JSONRPC, r.WebSocketText = nil, nil, nil, nil
			if r.File != nil {
				continue
			}
			if line, ok := eventOf(t, &r); ok {
				requests, lines = append(requests, r), append(lines, line)
			}
		}
		out := propose(t, "", lines, false)
		p, _, err := policy.Parse([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		approved := enforcing(t, p)
		for i, r := range requests {
			if got, err := approved.Evaluate(r.Action); err != nil || got.Decision != "allow" {
				t.Fatalf("seed %d: %+v, %v\nof %s\nproposed:\n%s", seed, got.Answer, err, lines[i], out)
			}
		}
	}
}

func FuzzPropose(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { checkProposals(t, seed) })
}
