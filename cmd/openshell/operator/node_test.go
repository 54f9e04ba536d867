// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
)

var start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// testNode is a node of its own.
type testNode struct {
	t                                     *testing.T
	config, stateDir, runDir, policiesDir string
}

func newNode(t *testing.T) *testNode {
	dir := t.TempDir()
	n := &testNode{t, filepath.Join(dir, "config.yaml"), filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "policies")}
	n.write(n.config, fmt.Sprintf("version: 1\nstate_dir: %s\nrun_dir: %s\npolicy_dir: %s\n", n.stateDir, n.runDir, n.policiesDir))
	return n
}

func (n *testNode) write(path, text string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) read(path string) string {
	n.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

func (n *testNode) policyFile(name string) string { return filepath.Join(n.policiesDir, name+".yaml") }

func (n *testNode) store() *state.Store { return state.Open(n.stateDir) }

// command is the root command with its output going to buffers.
func (n *testNode) command(stdin string, args ...string) (root *cobra.Command, stdout, stderr *bytes.Buffer) {
	root = &cobra.Command{Use: "openshell"}
	root.AddCommand(Commands()...)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(append(args, "--config", n.config))
	return root, stdout, stderr
}

func (n *testNode) runWith(stdin string, args ...string) (stdout, stderr string, code int) {
	root, out, errs := n.command(stdin, args...)
	code = Report(errs, root.ExecuteContext(n.t.Context()))
	return out.String(), errs.String(), code
}

// run expects success, and nothing on standard error.
func (n *testNode) run(args ...string) string {
	n.t.Helper()
	stdout, stderr, code := n.runWith("", args...)
	if code != 0 || stderr != "" {
		n.t.Fatalf("openshell %s: exit %d, %q; stdout %q", strings.Join(args, " "), code, stderr, stdout)
	}
	return stdout
}

// fails expects exit code 1 and one line on standard error, which it returns.
func (n *testNode) fails(args ...string) string {
	n.t.Helper()
	stdout, stderr, code := n.runWith("", args...)
	if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "openshell: ") {
		n.t.Fatalf("openshell %s: exit %d, stderr %q, stdout %q: want exit 1 and one line", strings.Join(args, " "), code, stderr, stdout)
	}
	return stderr
}

// learn has a permissive run of a policy see denials.
func (n *testNode) learn(policyName, run string, denials ...learn.Denial) {
	n.t.Helper()
	l := learn.Start(n.store(), learn.Run{ID: run, Sandbox: "sandbox-" + run, Container: run, Image: "alpine:3", Policy: policyName,
		Mode: learn.ModePermissive, TTL: "1h", Started: start}, learn.Options{})
	for _, d := range denials {
		l.Observe(d)
	}
	if err := l.Close(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// proposals are a policy's, by their hosts.
func (n *testNode) proposals(policyName string) map[string]learn.Proposal {
	n.t.Helper()
	list, err := learn.List(n.store(), policyName)
	if err != nil {
		n.t.Fatal(err)
	}
	byHost := map[string]learn.Proposal{}
	for _, p := range list {
		byHost[p.Rule.Endpoints[0].Host] = p
	}
	return byHost
}

func denied(host string, port uint16) learn.Denial {
	return learn.Denial{Time: start, Permissive: true, Layer: "l4", Host: host, Port: port, Binary: "/usr/bin/curl", SHA256: "aa",
		Ancestors: []string{"/bin/sh"}, Reason: fmt.Sprintf("endpoint %s:%d is not allowed by any policy", host, port)}
}

func request(host, method, path string) learn.Denial {
	d := denied(host, 443)
	d.Kind, d.TLS, d.Method, d.Path, d.Status = learn.KindHTTP, "terminated", method, path, 200
	return d
}

func wantContains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

func wantLacks(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q should not be in:\n%s", part, text)
		}
	}
}

func TestHelpOfEveryCommandHasAnExample(t *testing.T) {
	var check func(path string, commands []*cobra.Command)
	check = func(path string, commands []*cobra.Command) {
		for _, c := range commands {
			name := path + " " + c.Name()
			if !strings.Contains(c.Example, name) {
				t.Errorf("%s: no example of itself in %q", name, c.Example)
			}
			if c.Short == "" || c.Args == nil {
				t.Errorf("%s: needs a summary and a check of its arguments", name)
			}
			check(name, c.Commands())
		}
	}
	check("openshell", Commands())
}

func TestArgumentsAreChecked(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"show"}, "an argument is missing: openshell show ID"},
		{[]string{"proposals", "a", "b"}, `unexpected argument "b"`},
		{[]string{"proposals", "--status", "open"}, `--status "open"`},
		{[]string{"proposals", "../x"}, `name "../x"`},
		{[]string{"approve", "agent"}, "--all"},
		{[]string{"approve", "agent", "p-1", "--all"}, "--all"},
		{[]string{"reject", "agent", "p-1"}, "--reason"},
		{[]string{"policy", "nonsense"}, "nonsense"},
		{[]string{"policy", "eval"}, "--policy FILE"},
		{[]string{"ls", "--nonsense"}, "--nonsense"},
		{[]string{"logs", "../../etc"}, "sandbox"},
		{[]string{"logs", "gone"}, "no such sandbox"},
		{[]string{"show", "p-0"}, "there is none"},
	} {
		wantContains(t, n.fails(c.args...), c.want)
	}
	n.write(n.config, "version: 1\nnonsense: true\n")
	wantContains(t, n.fails("proposals"), "nonsense")
}
