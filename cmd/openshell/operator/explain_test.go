// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
)

func TestPolicyExplain(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), evalPolicy)
	file := n.policyFile("p")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"allowed": {[]string{"p", "--binary", "/usr/bin/curl", "--url", "https://api.github.com/repos/a?x=1", "--resolved-ip", "140.82.112.6"},
			[]string{"allow: /usr/bin/curl GET https://api.github.com:443/repos/a\n", "connection  allow  ", "(github)\n", "addresses   allow  ", "request     allow  "}},
		"by file": {[]string{"--policy", file, "--binary", "/usr/bin/curl", "--url", "https://api.github.com", "--method", "POST"},
			[]string{"deny: ", "request     deny   POST / not permitted", "github: names the endpoint for this program, and allows GET /repos/**", "to allow it, add to network_policies:\n  api_github_com_443_curl:\n", "        method: POST\n"}},
		"permissive": {[]string{"p", "--permissive", "--binary", "/usr/bin/wget", "--url", "http://api.github.com?x"},
			[]string{"audit: /usr/bin/wget GET http://api.github.com:80/\n", "connection  audit  endpoint api.github.com:80", "other ports: 443"}},
		"ancestor": {[]string{"p", "--binary", "/bin/sh", "--ancestor", "/x", "--ancestor", "/usr/bin/curl", "--url", "tcp://api.github.com:443"},
			[]string{"allow: /bin/sh api.github.com:443 (tcp)\n"}},
		"udp":      {[]string{"p", "--binary", "/a", "--url", "udp://api.github.com:443"}, []string{"deny: /a api.github.com:443 (udp)", "protocol: udp"}},
		"loopback": {[]string{"p", "--binary", "/a", "--url", "http://127.0.0.1:8080/", "--permissive"}, []string{"deny: ", "addresses   deny ", "always blocked"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantContains(t, n.run(append([]string{"policy", "explain"}, c.args...)...), c.want...)
			out := n.run(append([]string{"policy", "explain", "--json"}, c.args...)...)
			var x decision.Explanation
			if err := json.Unmarshal([]byte(out), &x); err != nil || strings.Count(out, "\n") != 1 || !strings.HasPrefix(c.want[0], x.Decision.Decision+":") || len(x.Steps) == 0 {
				t.Errorf("%v, %s", err, out)
			}
		})
	}
}

func TestPolicyExplainReadsRequests(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), evalPolicy)
	stdin := fmt.Sprintf(toGithub, "140.82.112.6", "GET") + "\nnonsense\x1b\n" + toOther
	stdout, stderr, code := n.runWith(stdin, "policy", "explain", "p")
	if code != 1 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	wantContains(t, stdout, "allow: /usr/bin/curl GET https://api.github.com:443/repos/a\n", "error: request: invalid", "deny: /usr/bin/curl other.example.com:443 (tcp)\n")
	wantLacks(t, stdout, "\x1b")
	stdout, _, code = n.runWith(stdin, "policy", "explain", "p", "--json")
	if lines := strings.Split(stdout, "\n"); code != 1 || len(lines) != 4 || !strings.HasPrefix(lines[1], `{"error":`) {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestPolicyExplainChecksItsArguments(t *testing.T) {
	n := newNode(t)
	n.write(n.policyFile("p"), evalPolicy)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "name the policy"},
		{[]string{"p", "--policy", n.policyFile("p")}, "name the policy"},
		{[]string{"gone", "--binary", "/a", "--url", "http://a"}, "policy gone: there is none"},
		{[]string{"p", "--url", "http://a"}, "--binary"},
		{[]string{"p", "--binary", "/a", "--url", "/x"}, "--url"},
		{[]string{"p", "--binary", "/a", "--url", "tcp://a"}, "needs a port"},
		{[]string{"p", "--binary", "/a", "--url", "tcp://a:70000"}, "needs a port"},
		{[]string{"p", "--binary", "/a", "--url", "ftp://a"}, "scheme"},
		{[]string{"p", "--binary", "/a", "--url", "http://a\x1b"}, "--url"},
		{[]string{"p", "--binary", "/a", "--url", "http://a", "--resolved-ip", "x"}, "resolved_ips"},
	} {
		wantContains(t, n.fails(append([]string{"policy", "explain"}, c.args...)...), c.want)
	}
	bad := n.policyFile("bad")
	n.write(bad, "version: 1\nnonsense: 1\n")
	if _, stderr, code := n.runWith("", "policy", "explain", "--policy", bad); code != 2 || !strings.HasPrefix(stderr, bad+":2:1: ") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
