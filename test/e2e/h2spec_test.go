// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// h2spec checks an HTTP/2 server frame by frame. Through the sandbox, the
// server it meets is the proxy's.
func TestHTTP2Conformance(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("h2spec", `version: 1
network_policies:
  all:
    endpoints:
      - {host: web.example, port: 80, protocol: rest, enforcement: enforce, access: full}
`)
	node.Must(t, os.MkdirAll(w.TryDir(), 0o755))
	h2spec := filepath.Join(w.TryDir(), "h2spec")
	build := exec.Command("go", "build", "-C", "../h2spec", "-o", h2spec, "github.com/summerwind/h2spec/cmd/h2spec")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build h2spec: %v\n%s", err, out)
	}
	o := shell(w, "", "h2spec", "./h2spec -h "+fakenet.WebHost+" -p 80 || true")
	failed := failures(o.Stdout)
	if !strings.Contains(o.Stdout, "145 tests") {
		t.Fatalf("h2spec did not run: %s", o)
	}
	var direct []string
	node.Must(t, w.Net.Do(func() error {
		out, _ := exec.Command(h2spec, "-h", fakenet.Addrs(fakenet.WebHost)[0].String(), "-p", "80").Output()
		direct = failures(string(out))
		return nil
	}))
	for _, f := range failed {
		if !slices.Contains(direct, f) {
			t.Errorf("fails through the sandbox only: %s", f)
		}
	}
	t.Logf("h2spec: %d failures through the sandbox, %d of net/http's server alone", len(failed), len(direct))
}

// failures are the lines of h2spec's summary that name a failed test.
func failures(output string) []string {
	_, summary, _ := strings.Cut(output, "Failures:")
	var out []string
	for line := range node.Lines(summary) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "× ") {
			out = append(out, line)
		}
	}
	return out
}
