// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/node"
)

// What a command must not see of this host, in either mode.
func TestTrySeesNoSecrets(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	node.Must(t, os.WriteFile(filepath.Join(w.TryDir(), "here"), []byte("of the working directory\n"), 0o600))
	const canary = "the canary"
	home := "/home/openshell-e2e"
	secrets := []string{
		"/etc/openshell-e2e.conf", "/etc/openshell-e2e.d/open", "/etc/ssh/ssh_host_e2e_key", home + "/notes", "/opt/openshell-e2e/secret.env",
		"/var/log/openshell-e2e.log", filepath.Join(os.TempDir(), "openshell-e2e"), "/var/tmp/openshell-e2e", "/dev/shm/openshell-e2e",
		"/run/openshell-e2e", "/var/lib/containerd/openshell-e2e", filepath.Join(w.StateDir, "secret"),
	}
	for _, path := range secrets {
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) { // what the test makes it removes
			if _, err := os.Lstat(dir); err == nil {
				break
			}
			t.Cleanup(func() { os.Remove(dir) })
		}
		node.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		node.Must(t, os.WriteFile(path, []byte(canary), 0o600))
		t.Cleanup(func() { os.Remove(path) })
	}
	node.Must(t, os.Chmod("/etc/ssh/ssh_host_e2e_key", 0o644)) // known by its name
	node.Must(t, os.Chmod(home+"/notes", 0o644))
	node.Must(t, os.Chmod("/etc/openshell-e2e.d", 0o700)) // known by its directory's mode
	node.Must(t, os.Chmod("/etc/openshell-e2e.d/open", 0o644))
	secrets = append(secrets, "/etc/shadow", "/etc/gshadow")
	script := `for f; do cat "$f" && echo "SEEN $f"; done; ls -d /etc/ssh/ssh_host_* "${TMPDIR:-/tmp}"/*; grep -c ^root: /etc/passwd; cat here`
	for _, mode := range [][]string{nil, {"--permissive"}, {"--bind"}, {"--permissive", "--bind"}} {
		args := append(mode, "--", "/bin/sh", "-c", script, "sh")
		o := w.Try(append(args, secrets...)...)
		if strings.Contains(o.Stdout, "SEEN") || strings.Contains(o.Stdout, canary) || strings.Contains(o.Stdout, "ssh_host") || strings.Contains(o.Stdout, "openshell-e2e") {
			t.Errorf("%q: %s", mode, o)
		}
		if !strings.HasSuffix(o.Stdout, "1\nof the working directory\n") {
			t.Errorf("%q: what it may see is missing: %s", mode, o)
		}
	}
	// What the policy names is seen.
	w.Policy("named", nothing+"filesystem_policy: {include_workdir: true, read_only: [/etc/openshell-e2e.conf]}\n")
	if o := w.Try("--policy", "named", "--", "/bin/cat", "/etc/openshell-e2e.conf"); o.Stdout != canary {
		t.Errorf("a secret that the policy names: %s", o)
	}
}

// What holds the command is known, though openshell-init stays its parent.
func TestTryIsConfined(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	cmd := w.Command("try", "--", "/bin/sh", "-c", "grep -h ^Seccomp: /proc/1/task/*/status /proc/self/status; echo ready; sleep 1000")
	cmd.Dir = w.TryDir()
	w.Launch(cmd)
	node.Eventually(t, node.Patience, "what is in force is known", func() bool {
		return strings.Contains(node.TextOf(cmd.Stdout), "ready") && strings.Contains(w.Operate("ls", "--json"), `"no_new_privs": true`)
	})
	node.Must(t, cmd.Process.Signal(unix.SIGTERM))
	o := w.Finish(cmd)
	if o.Status != 143 || strings.Count(o.Stdout, "Seccomp:\t2\n") < 2 || strings.Count(o.Stdout, "Seccomp:") != strings.Count(o.Stdout, "Seccomp:\t2\n") {
		t.Error(o)
	}
}

// A name that a run had is not had by the next one, and it is said.
func TestTryNamesNeverRepeat(t *testing.T) {
	w := node.New(t)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	seen := map[string]bool{}
	for range 2 {
		o := w.Try("--permissive", "--", "/bin/ls", "/srv")
		_, rest, _ := strings.Cut(o.Stderr, "this run's policy is ")
		name, _, ok := strings.Cut(rest, ":")
		if !ok || seen[name] || len(w.ProposalsOf(learn.KindFilesystem, name)) != 1 {
			t.Errorf("name %q: %s", name, o)
		}
		seen[name] = true
	}
}
