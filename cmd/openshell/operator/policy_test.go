// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestPolicyCheck(t *testing.T) {
	n := newNode(t)
	good, bad, open := n.policyFile("good"), n.policyFile("bad"), n.policyFile("open")
	n.write(good, agentPolicy)
	n.write(open, "version: 1\nnetwork_policies:\n  any:\n    endpoints:\n      - {host: a.example.com, port: 443}\n")
	n.write(bad, "version: 1\nnonsense: 1\nnetwork_policies:\n  a:\n    endpoints:\n      - {host: a.example.com, port: 70000}\n")

	if out := n.run("policy", "check", good); out != good+": valid\n" {
		t.Errorf("valid: %q", out)
	}
	stdout, stderr, code := n.runWith("", "policy", "check", open)
	if code != 0 || stdout != open+": valid\n" || !strings.HasPrefix(stderr, open+":4:5: warning: network_policies.any") {
		t.Errorf("with a warning: exit %d, %q, %q", code, stdout, stderr)
	}
	stdout, stderr, code = n.runWith("", "policy", "check", bad, good, "/nonexistent")
	if code != 2 || stdout != good+": valid\n" {
		t.Errorf("invalid: exit %d, %q", code, stdout)
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], bad+":2:1: nonsense: ") ||
		!strings.HasPrefix(lines[1], bad+":6:") || !strings.Contains(lines[1], ": network_policies.a.endpoints[0].port: ") ||
		!strings.Contains(lines[2], "/nonexistent") {
		t.Errorf("problems: %q", lines)
	}
	wantContains(t, n.fails("policy", "check", "/nonexistent"), "/nonexistent")
	if stdout, _, code := n.runWith(agentPolicy, "policy", "check", "-"); code != 0 || stdout != "-: valid\n" {
		t.Errorf("standard input: exit %d, %q", code, stdout)
	}
}

const evalPolicy = `version: 1
network_policies:
  github:
    endpoints:
      - host: api.github.com
        port: 443
        protocol: rest
        enforcement: enforce
        rules:
          - allow: {method: GET, path: /repos/**}
    binaries: [{path: /usr/bin/curl}]
`

const (
	toGithub = `{"binary":"/usr/bin/curl","host":"api.github.com","port":443,"resolved_ips":["%s"],"http":{"method":"%s","target":"/repos/a?x=1"}}`
	toOther  = `{"binary":"/usr/bin/curl","ancestors":["/bin/sh"],"host":"other.example.com","port":443}`
)

func TestPolicyEval(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), evalPolicy)
	get, post, inside := fmt.Sprintf(toGithub, "140.82.112.6", "GET"), fmt.Sprintf(toGithub, "140.82.112.6", "POST"), fmt.Sprintf(toGithub, "169.254.169.254", "GET")
	for name, c := range map[string]struct {
		stdin  string
		args   []string
		want   []string // one part of each answer
		absent string
		code   int
	}{
		"nothing":      {"", nil, nil, "", 0},
		"enforcing":    {get + "\n" + post + "\n" + inside + "\n" + toOther, nil, []string{`{"decision":"allow","layer":"l7","policy":"github","reason":""}`, `"deny","layer":"l7"`, `"deny","layer":"ssrf"`, `"deny","layer":"l4"`}, "", 0},
		"permissive":   {get + "\n" + post + "\n" + inside + "\n" + toOther + "\n", []string{"--permissive"}, []string{`"allow"`, `"audit","layer":"l7"`, `"deny","layer":"ssrf"`, `"audit","layer":"l4"`}, "", 0},
		"not JSON":     {"nonsense\n" + get + "\n", nil, []string{`{"error":"request: invalid`, `"allow"`}, "", 1},
		"cut short":    {get[:50], nil, []string{`{"error":"request: is not a whole`}, "", 1},
		"empty":        {"\n" + get, nil, []string{`{"error":"request: is not a whole`, `"allow"`}, "", 1},
		"misspelt":     {strings.Replace(inside, "resolved_ips", "resolved_ip", 1), nil, []string{`{"error":"request: unknown field \"resolved_ip\""}`}, "", 1},
		"other case":   {strings.Replace(inside, `"host"`, `"Host"`, 1), nil, []string{`{"error":"request: unknown field \"Host\""}`}, "", 1},
		"folded":       {strings.Replace(inside, `"host"`, `"hoſt"`, 1), nil, []string{`{"error":"request: unknown field \"hoſt\""}`}, "", 1},
		"twice":        {strings.Replace(inside, `"port"`, `"host":"a.example","port"`, 1), nil, []string{`{"error":"request: repeated key host"}`}, "", 1},
		"nested twice": {strings.Replace(get, `"target"`, `"method":"PUT","target"`, 1), nil, []string{`{"error":"request: http: repeated key method"}`}, "", 1},
		"body's own":   {strings.Replace(get, `"http"`, `"graphql":{"X":1,"X":2},"http"`, 1), nil, []string{`"allow"`}, "", 0},
		"two in one":   {get + get, nil, []string{`{"error":"request: text after`}, "", 1},
		"no host":      {`{"binary":"/a","port":1}`, nil, []string{`{"error":"host is required"}`}, "", 1},
		"port":         {`{"binary":"/a","host":"a","port":70000}`, nil, []string{`{"error":"port: number 70000 is not a uint16"}`}, "", 1},
		"not UTF-8":    {`{"binary":"/a` + "\xff" + `","host":"a","port":1}`, nil, []string{`{"error":"request: is not valid UTF-8"}`}, "", 1},
		"control":      {`{"binary":"/a","host":"a","port":1,"\u001b[2J":1}`, nil, []string{`unknown field`}, "\x1b", 1},
		"line too big": {strings.Repeat("x", maxRequestLine+1) + "\n" + get, nil, []string{`{"error":"the line is too long"}`, `"allow"`}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := n.runWith(c.stdin, append([]string{"policy", "eval", "--policy", n.policyFile("p")}, c.args...)...)
			lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if stdout == "" {
				lines = nil
			}
			if code != c.code || stderr != "" || len(lines) != len(c.want) || c.absent != "" && strings.Contains(stdout, c.absent) {
				t.Fatalf("exit %d (want %d), stderr %q, answers %q", code, c.code, stderr, lines)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("answer %d: %s: want %s", i, lines[i], want)
				}
			}
		})
	}
}

func TestPolicyEvalRefusesInvalidPolicy(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), "version: 1\na: 1\nb: 2\n")
	stdout, stderr, code := n.runWith(toOther, "policy", "eval", "--policy", n.policyFile("p"))
	if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 2 || !strings.HasPrefix(stderr, n.policyFile("p")+":2:1: a: ") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := n.runWith("", "policy", "eval", "--policy", "/nonexistent"); code != 2 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("no file: exit %d, %q", code, stderr)
	}
}

// A program that asks one thing at a time gets each answer before it asks the next, even if
// it has begun to.
func TestPolicyEvalAnswersAtOnce(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), evalPolicy)
	p, err := parseFile(n.policyFile("p"))
	if err != nil {
		t.Fatal(err)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- evaluate(enforcing(t, p), inR, outW) }()
	answers := bufio.NewReader(outR)
	time.AfterFunc(time.Minute, func() { outW.CloseWithError(io.ErrNoProgress) })
	half := len(toOther) / 2
	for _, text := range []string{toOther + "\n" + toOther[:half], toOther[half:] + "\n"} {
		if _, err := io.WriteString(inW, text); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, `"deny"`) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	inW.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(toOther))
	f.Add([]byte(fmt.Sprintf(toGithub, "::1", "GET")))
	f.Add([]byte(`{"binary":"/a","host":"a","port":1,"graphql":[{}],"websocket_text":"x"}`))
	f.Add([]byte("{}{}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseAction(line)
		if err == nil && len(line) == 0 {
			t.Fatalf("nothing becomes %+v", r)
		}
		if err != nil && strings.ContainsAny(plain(err.Error()), "\n\x1b") {
			t.Fatalf("%q", err)
		}
	})
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("y", 100<<10)
	l := newLineReader(strings.NewReader("a\n\n"+long+"\n"+long+"z\nend"), len(long))
	for i, want := range []string{"a", "", long, "too long", "end"} {
		got, err := l.next()
		if want == "too long" {
			if err != errLineTooLong {
				t.Errorf("line %d: %d bytes, %v", i, len(got), err)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("line %d: %d bytes, %v", i, len(got), err)
		}
	}
	for range 2 {
		if got, err := l.next(); err != io.EOF {
			t.Errorf("at the end: %q, %v", got, err)
		}
	}
}
